"""The words of docs/performance.md, section by section."""

HEAD = """\
# Performance

<!-- Written by `python -m bench report`; do not edit. -->

How long a change takes from an operator to a trainer's handler and back, beside what one would use instead
in the same run, and what zloom costs a training. `make bench` measures it on your machine and saves it in
`out/bench/`; `python -m bench report FILE.json` writes this page from what was saved, and draws its pictures.

{machine}
"""

GOALS = """\
## Goals

Who is compared takes turns, A B A B, within each round. The figure is the median of the rounds' ratios (`/`)
or differences (`-`), and in brackets stand the least and the greatest.

{verdicts}
"""

LIMITS = """\
## Goals that were missed, and what is possible

The skeleton is a broker, a weavelet and an operator that keep what zloom promises of a change as long as
nothing fails, and can do nothing else. A change takes the four hops, the two commits, the thread beside the
training and the wait for its next step, over the same sockets, loops, threads and tables, and under `fsync`
with the head file, without which nobody could tell that confirmed rows are missing. Messages and records are
zloom's, each encoded at one end and decoded at the other. The broker refuses a value that does not fit and
another change under the same id, numbers the change, chains it to those before, confirms it once it is on
disk, and counts the outcomes by replica; those that come in one turn of its loop are one record. The weavelet
sees that no revision is missing, converts the value, has the handler called, and keeps the outcome until it
is acknowledged. There are a beat, the statuses that answer it and libzmq's heartbeats, without which nobody
could tell who hangs. Nothing is sent again or told to anybody who watches, and nobody joins, declares,
restores, agrees or guards. Where it misses a goal itself, no broker of these parts (CPython, asyncio, libzmq,
SQLite, msgspec) that promises as much can reach it, and what it reaches is how near one can come. Beside
Lightning it is a callback that does in each batch what zloom's must. Both columns have the rounds' median
ratio, the least and the greatest.

{limits}
"""

ROUND_TRIPS = """\
## Round trips

For zloom: `await operator.set(…)` of one key, from the call to the result that names the step at which the
trainer applied it: operator → broker → journal → weavelet → handler at the next safe point → broker →
journal → operator. With `fsync` the change and its outcome are each on disk before anybody is told; with
`buffered` the operating system has them.

`sockets`, `pyzmq` and `zmq.asyncio` are echoes of {payload} bytes over the same two hops, client → router →
worker and back: the floor, on which nothing is validated, numbered, written or handed to the training thread.
`sockets` are those of the system, blocking, with no library at all. `skeleton` is what zloom cannot do
without, and nothing else.

`NATS` is a request to a handler in the trainer and its answer; the server keeps nothing. With `JetStream` the
change goes to a stream on files, whose acknowledgement the operator waits for, and its outcome to another,
which the operator reads; its files are on disk every two minutes. With `JetStream always` they are before it
answers. With `Redis` the operator publishes on one channel, and the trainer's handler its outcome on another;
the server keeps nothing. Nobody asks for keys, and nothing is encrypted.

*Idle*: the training waits, zloom's in a pause inside `tick()`, and changes are made one right after the
other. {loads}

Over ipc and tcp the operator, the broker and the trainer are processes of their own. Over inproc all of
them share one process and one interpreter, each in a thread; while the training is busy they take turns,
and the clock starts when the operator has its turn.

Milliseconds, of the n samples of all rounds together; a p99.9 takes {thousandth} of them at least. Where the
package `hdrhistogram` is installed, the saved run has all samples of each row as an HdrHistogram.

{round_trips}
"""

BUSY = """\
*Busy*: it makes steps of {step_ms:.2f} ms in pure Python, in the thread beside the weavelet or the
worker, and between two changes lie {apart_ms:.1f} ms at most, in which it gets the interpreter back. Such
steps never give the interpreter up by themselves: whoever else wants it waits for the switch interval, 5 ms
by default, each time; unless it comes in the moment before the training itself has woken up, and then it is
served as if idle. The medians lie between these two kinds, and so differ from round to round. Most
operations of PyTorch let go of the interpreter: a real training lies between idle and busy."""

TORCH = """

*Torch*: it trains a small model of PyTorch on one thread, {step_ms:.2f} ms a step. The handlers of zloom, of
NATS and of Redis run between two steps; the echoes answer from their thread at once."""

PROPORTION = """\
## In proportion

zloom's median divided by a peer's median of the same round; the contenders take turns within each of
{rounds} rounds. The table has the median of the rounds' ratios, and in brackets the least and the greatest.
A busy training over inproc is left out: which thread of the one interpreter runs next is up to chance.

{ratios}
"""

ANATOMY = """\
## Anatomy of a change

Where the time of a change over tcp goes, the training idle. The operator, the broker and the trainer take
stamps, on the clock that all processes of a machine share, where certain functions of zloom begin or end:
their processes wrap these at the start, and zloom knows nothing of it. Each leg ends at a stamp and begins
where the one before ended, so that the legs of a change add up to the whole. Microseconds: the median of the
rounds' medians, and in brackets the least and the greatest. Changes into which something else fell, such as a
beat or a ping, are left out; here {left_out}.

{legs}

*Between processes* is libzmq at both ends, the kernel, and the wake of a loop that sleeps. *Python on the
loops* decodes, checks, decides and encodes, in all three processes. *Journal* is the hand-over to its thread,
the commit, with the head file for `fsync`, and the way back to the loop. *Training thread* is the hand-over
to it, the safe point with its handler, and the way back. `without stamps` are other processes, which took
short turns with those with stamps; what the stamps take is the difference of the rounds.

{groups}

### What must be there

A change that a broker passes on, that is written before anybody is told, as its outcome is, by a thread of
its own so that no disk holds up the loop, and that is carried out on the training's thread, needs these
parts, whatever else is done or left out. Each was measured by itself in the same rounds. Hop: half of an echo
of {payload} bytes over one hop, between two processes with blocking sockets of pyzmq. Hand-over: from the
call until a thread that slept in a `threading.Condition` runs. Hand-back: from `call_soon_threadsafe` until
an asyncio loop that slept calls back. Commit: one row of {payload} bytes into a database that is set up like
the journal's, without the head file. A goal asks for a multiple of what the peer took in the round trips.

{needed}

{out_of_reach}
"""

NO_PEERS = "The run has no round trips of the peers that the goals are set by."

OPEN_LOOP = """\
## Open loop

The same changes over tcp, the training idle, at fixed rates: each is sent when its time has come, whether or
not those before it were answered, as by operators who know nothing of each other. Above, the next change
waits for the answer to the one before, and so one that is slow keeps away those who would have queued behind
it (coordinated omission). Here the milliseconds count from when a change should have been sent, also where
the sender was late, and one without an answer {grace:g} s after the last was sent counts with what it had
waited. The last rate is one at which some fall behind: they answer fewer a second than are sent, and the
changes queue.

{open_loop}
"""

CURVES = """\
## Latency, drawn

All samples over tcp, the training idle: so many of them took no longer than so many milliseconds. Both axes
are logarithmic, that of the percentiles toward 100 %; a line ends where there are no samples for more.

{picture}"""

COSTS = """\
## What a step pays

One call on the training thread, with a broker connected that takes the points: the best and the median of
batches of {batch} calls. The tensor is on the CPU where nothing else is said; from a GPU it is copied behind
what is queued there, without a wait, and what torch itself takes for that has lines of its own. The loop of
the measurement is in each figure, those of the empty methods too. Nanoseconds; a goal is met when the median
is below it:

{costs}{reach}
"""

ABSENT = """\
## Not measured in this run

{absent}
"""

START = """\
## Start

`import`: a Python that imports it and ends. `--help`: `zloom --help`, beside a Python that does nothing.
`broker`: from the start of the process to when it can be connected to, with an empty journal (`NATS`: with
JetStream, on files), and what it holds in memory (RSS) once it has answered a first client. Of a round's
starts the fastest counts.

{figures}
"""

TRAINER = """\
## Steps of a training

Steps a second of a loop in pure Python, which never lets go of the interpreter, so that each thread beside it
takes something away. In a round each has five turns, one after the other's, all in one process, as where its
memory lies makes the steps of one some percent faster than those of another. With zloom a step has a `tick()`
and a `report(loss=…)`: its broker is there, was killed with -9 before the turn, or never was. `bare loop,
again` is the bare loop once more: what the two differ by is no cost of anything. `Lightning` has the same
step in a `Trainer`, `Lightning, zloom` its `WeaveletCallback`. `Lightning, empty callback` has one that does
nothing, as Lightning calls all hooks of any; and `Lightning, skeleton callback` one that does what zloom's
must in each batch, in one function for each hook, and nothing else: it counts a step, notes where the loop
stands, looks whether something is to be done there, keeps what was logged anew for who takes it, reads the
numbers of a hundred batches together, and ten times a second epoch and learning rate. Nothing is ever to be
done. `NATS publish` sends a message a step from a thread that has nats-py's loop; `TensorBoard add_scalar`
writes a scalar a step.

The turns in a `Trainer` are short and many, and the weavelet lives in all of them, as its first second is not
like the others: what its thread takes is told by the next figure alone.

How many steps are made in two turns differs by chance, by more than a hundredth. So `taken from it` adds up,
of the time of each turn, what a loop does beside its steps and the CPU of all other threads of its process:
all that can keep a training from its steps. Around the hooks of Lightning it takes a stopwatch, which costs
a step some microseconds itself, and so has turns of its own.

{figures}
"""

GPU = """\
## Steps on a GPU

Steps a second of a model of torch on a GPU, whose loss is handed over in each step, and which waits for the
GPU in each fourth. zloom takes the loss as the tensor that it is; `NATS publish` and `TensorBoard add_scalar`
read its number, which waits for the GPU. `torch's copy alone` is what any must do to have the number without
a wait: a copy to page-locked memory behind the step, and an event behind that. `bare loop, again` is the bare
loop once more, and tells what two differ by.

{figures}
"""

FANOUT = """\
## Fan-out

One change to all weavelets of a run, over tcp, whose handlers run on their loops at once
(`mode="immediate"`), until the operator has the outcome of each. They are shared out among a few processes,
each weavelet with connections of its own. `NATS` publishes to as many subscribers, each with a connection
of its own, and waits for the answer of each; its server keeps nothing. So does `Redis`, where each
subscriber answers on a second connection. `pyzmq` is the floor: the same connections as zloom's, each
subscriber sends back what it got, and the server tells the operator once all have; nothing is decoded,
checked, numbered or written. `skeleton` is what zloom cannot do without, and nothing else. The server's CPU
is what the broker used for a change, and the weavelets' what all their processes used together: on this
machine both share the cores, where trainers would have their own.

{figures}
"""

JOURNAL = """\
## Journal

*Rows*: the journal by itself, on disk before it confirms, given rows one after the other, each when the one
before was confirmed, or all at once. *Changes at once*: accepted changes a second of one operator, a thousand
on their way together, to one weavelet whose outcomes are journaled too; `JetStream always` acknowledges as
many messages. *Restart*: from the start of the process to when it can be connected to, on what it kept when
it was killed with -9; a start reads the newest snapshot and the rows after it.

{figures}
"""

HERD = """\
## A herd comes back

The server is killed with -9 and started again, on the same port of tcp and with what it kept; from when it
can be connected to until all are back and one change, or message, was answered by each. The memory (RSS) is
what it holds then.

{figures}
"""

INGEST = """\
## Metrics

Four trainers report ten metrics a step, as fast as they can, until the one operator who watches has all
points of all of them, none lost; over tcp. A weavelet sends 5,000 of them at a time, as they come.
`NATS` publishes a message a point to one subscriber.

{figures}
"""

PICTURE = """\
![{words}]({path})
"""

PICTURES = {
    "latency": "Percentiles of latency of each contender, one after the other and at fixed rates",
    "fanout": "Milliseconds until all outcomes over the number of weavelets",
    "steps": "Steps a second as a share of the bare loop's: median, least and greatest of the rounds",
    "cuda": "Steps a second on a GPU as a share of the bare loop's: median, least and greatest of the rounds",
}
"""By the name of a picture: what it shows, in words."""

PICTURE_OF = {"fanout": "fanout", "trainer": "steps", "gpu": "cuda"}
"""By the name of a bench: the picture at the end of its section."""

BENCHES: dict[str, str] = {
    "start": START,
    "trainer": TRAINER,
    "gpu": GPU,
    "fanout": FANOUT,
    "herd": HERD,
    "ingest": INGEST,
    "journal": JOURNAL,
}
"""By the name of a bench: its section."""
