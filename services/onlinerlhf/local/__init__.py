"""The whole platform on one machine: processes and their supervision, the live view, status, doctor, and the demo.

Nothing here serves or trains; it starts the rooms as processes of their own and talks to them as any client does.
"""
