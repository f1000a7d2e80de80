"""`python -m zloom` is `zloom`."""

from zloom.cli import main

if __name__ == "__main__":
    main()
