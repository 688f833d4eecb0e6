"""`python -m maekit`, the command line where no script is installed and under torchrun."""

from maekit.cli import entry

if __name__ == "__main__":
    entry()
