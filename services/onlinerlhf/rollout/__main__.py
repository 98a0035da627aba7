"""`python -m onlinerlhf.rollout`. vLLM's processes import this file again, so all is inside the guard."""

if __name__ == "__main__":
    from onlinerlhf.rollout.app import run
    from onlinerlhf.runtime.serving import main

    main("rollout", run)
