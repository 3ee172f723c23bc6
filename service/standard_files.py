"""Standard input, output and error, which whoever starts the service may have closed."""

from __future__ import annotations

import os
import sys


def open_closed() -> None:
    """Opens those that are closed, on nothing.

    Else the next file has their number, a client's connection for instance, and gets what libraries in C
    complain about; and Python has None in place of a file to log to.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing == number:
                os.set_inheritable(number, True)  # worker processes need them as well
            else:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # for as long as we live
