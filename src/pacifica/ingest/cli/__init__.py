"""The command lines: `pacifica-ingest` (`server`) and `pacifica-ingest-cmd` (`admin`, with one module for each topic).

They read options, call the service that `app` wires, and print.  They hold no rule of their own.  Exit codes, the same for
all commands:

===  =================================================================================
0    done; the answer is yes
1    the answer is no: a failed job, an unknown job, an unsafe schema, a check that failed
2    the command line is wrong
3    the configuration is wrong, or the folder is not fit for it
4    something is unavailable: the database, a neighbour, a port, a disk
130  interrupted
===  =================================================================================
"""

__all__: list[str] = []
