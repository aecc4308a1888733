"""`python -m deploykit`: the command line, for where the script is not on PATH."""

from deploykit.cli import main

if __name__ == "__main__":
    main()
