"""The rules of the job protocol, one line each; a test takes each of them away and sees that the judge notices.

What it is not: the protocol; that is `protocol`, which asks for a rule at the place where it holds.

Who may call it: everything in this folder.

Source: the job protocol in `docs/architecture.md`.
"""

from enum import StrEnum

__all__ = ["Rule"]


class Rule(StrEnum):
    """What holds the promises; the value says what it is, the comment what becomes possible without it."""

    # --- accepting
    #: Two uploads under one number.
    JOB_ID_ONCE = "a job id that is taken is not taken again"
    #: A cut body passes for a whole one.
    LENGTH = "a body is as long as it was announced to be"
    #: A crash after the answer loses the bundle.
    FILE_BEFORE_ANSWER = "the staged file is durable before the answer"
    #: A crash after the answer loses the job.
    ROW_BEFORE_ANSWER = "the row says READY before the answer"
    #: A server that woke up late accepts a body that was thrown away.
    UPLOAD_OWNER = "only the owner of an upload can complete it"
    #: A client that was refused finds its bundle registered, and sent it again.
    CONFIRM = "an upload whose commit is unclear is asked for again, and never called refused"
    #: The same, for a job that was over before it was asked for again.
    ACCEPTED = "what was accepted is known by its history, as its row may tell of its end already"
    #: One bundle becomes two jobs.
    KEY_ONCE = "a request that is sent again with its key is the same job"
    # --- owning
    #: A slow owner overwrites what its successor did.
    EPOCH = "every write of an owner compares the epoch"
    #: A slow owner has the epoch of its successor.
    NEW_EPOCH = "every change of owner makes a new epoch"
    #: A hint that comes twice starts a job that is over.
    READY_ONLY = "only a READY job can be claimed"
    # --- bundles
    #: What is not allowed is archived.
    POLICY = "Policy is asked before anything is done"
    #: A broken bundle is sent again and again.
    CHECK = "a bundle is checked before its first byte is sent"
    # --- archiving
    #: Objects that no list knows.
    INTENT_FIRST = "an intent is committed before bytes are sent"
    #: Objects that no list calls garbage.
    ABANDON = "what an earlier attempt left goes on the garbage list"
    #: An object of ours that no list calls garbage.
    VOID = "only an id that surely holds nothing of ours is let go instead of listed"
    #: A request that was carried out late destroys what was read back well.
    BYTES_ONCE = "an id is sent bytes at most once"
    #: Two files under one id.
    ID_ONCE = "an archive id belongs to one file, ever"
    #: What somebody else archived is overwritten.
    PROBE = "the first id of a range is probed"
    #: Wrong bytes count as archived.
    READ_BACK = "what was sent is read back"
    #: A file that was moved is looked for where it was.
    BOTH_SIDES = "what became of an unclear move is told by what is left on both sides"
    #: A file that the archive copied half-way is waited for, for ever.
    GIVE_UP = "an id under which a part of a moved file stands still is given up"
    #: A file that an old request moved after all is looked for where it was, for ever.
    TAKE_BACK = "what an old request moved under an id that was given up is taken back"
    # --- registering
    #: What is registered is judged again, and fails.
    FREEZE = "what may be registered is only registered, never judged again"
    #: What is registered is taken for a conflict.
    LOOK_UP = "an unclear registration is looked up"
    # --- ending
    #: A fault that passes ends a job.
    WAIT = "a transient fault is waited for"
    #: Nothing is left to try again with.
    FAILED_KEEPS = "a failed job keeps its bundle"
    #: Nothing is left to go on with.
    DONE_BEFORE_REMOVAL = "the staged file is removed after the job is DONE"
    # --- recovering
    #: A lost hint loses a job.
    SWEEP_HINTS = "the sweep hints again"
    #: A dead owner holds its job for ever.
    SWEEP_TAKES_OVER = "the sweep takes over what stands still"
    #: A dead server holds its upload for ever.
    SWEEP_GIVES_UP = "the sweep gives up an upload that stands still"
    #: A job that went on is taken from its owner, or from its end.
    STILL_THE_SAME = "only a job that did not move since it was read is taken over"
    #: A staged file for ever.
    SWEEP_CLEANS = "the sweep removes the staged file of a job that is done"
    # --- keeping
    #: The sources of a move are gone, and so is what it archived; what is registered becomes garbage.
    ONLY_COPY = "a bundle is not given up when something would be lost with it"
    #: A job that was tried again loses its bundle.
    STILL_ENDED = "only a job that did not move since it was read is given up"
    #: What could not be removed is on no list any more.
    GONE_BEFORE_REMOVED = "garbage leaves the list when it surely is gone"
    #: A clock that was set back holds a job for ever.
    NEVER_THAT_LONG = "a time to go on at that is too far away is taken for past"
