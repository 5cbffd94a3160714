"""``python -m tlfeat``."""

from tlfeat.cli.app import main

if __name__ == "__main__":
    main()
