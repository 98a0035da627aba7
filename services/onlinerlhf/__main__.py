"""`python -m onlinerlhf`."""

from onlinerlhf.cli import main

if __name__ == "__main__":
    main()
