"""Ctrl-C while `python -m entropix` imports JAX is one line, as it is for the installed command.

Python imports this package before it runs `entropix.__main__`. Until then `-m` stands in the place
of the program's name, and the module that is asked for stands before the arguments. Where another
module is asked for, whose package imports this one, Ctrl-C stays that program's.
"""

import sys

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] == "entropix":
    import entropix_command

    entropix_command.leave_on_ctrl_c()
