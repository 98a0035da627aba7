"""The HTTP front: OpenAI's API on the gateway's desk. Nothing outside imports fastapi or uvicorn."""
