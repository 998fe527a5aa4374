"""Ctrl-C while `python -m entropix` imports JAX is one line, as it is for the installed command.

Python imports this package before it runs `entropix.__main__`, and says so by `-m` in the place of
the program's name.
"""

import sys

if sys.argv[:1] == ["-m"]:
    import entropix_command

    entropix_command.leave_on_ctrl_c()
