"""``python -m sam_spl COMMAND ...``, as ``sam-spl COMMAND ...``."""

from sam_spl.cli.main import main

if __name__ == "__main__":
    main()
