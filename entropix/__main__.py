"""`python -m entropix` is the command `entropix`."""

import sys

from entropix_command import main

if __name__ == "__main__":
    sys.exit(main())
