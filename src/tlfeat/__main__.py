"""``python -m tlfeat``."""

from tlfeat.cli import main

if __name__ == "__main__":
    main()
