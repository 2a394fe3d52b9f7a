"""The thread pool's native code, as LLVM IR text.

Both versions define the same two symbols, so a program does not know which one it calls:

    @pool           the words of the one pool of the process
    @parallel_for   void (ptr pool, ptr fn, ptr ctx, i64 n):
                    fn(ptr ctx, i64 chunk, i64 tid) for each chunk in 0..n-1

The protocol of the threaded version.  One word, `state`, is all that caller and workers race for:

    epoch : 32 | taken from the top : 16 | taken from the bottom : 16

The caller takes chunks from the bottom, workers take them from the top; in a series of loops
each core then meets the data it has just written.  To start a job the caller *closes* the word
(both counts full), writes the job, and *opens* it with the next epoch and zero counts.  A worker
reads the word, then the job, then tries to compare-exchange the word: success proves that the
job it read belongs to that epoch.  A worker that wakes late finds nothing to take, and nobody
waits for it: the caller leaves as soon as every chunk is done, whoever did it.

Idle workers spin for a while, then sleep on the futex `wake`; `sleepers` tells the caller whether
a system call is needed.  Workers above the limit sleep on the futex `park`.  A caller that runs
out of chunks spins as well, then sleeps on `waiting`.  Each pair of "announce, then look again"
is sequentially consistent on both sides, so no wake-up can be lost.

Waking a worker takes the caller some 10 us, so a job of few chunks that finds the workers asleep
is done without them, unless another such job came shortly before.

A worker may lose its processor to another process in the middle of a chunk, for many
milliseconds.  So a caller that waits looks at the processor time of the workers that have a chunk.
One whose time stands still it *pulls*: it moves the worker to its own processor, which it then
leaves to it by going to sleep, and moves it away again after the job.  Such a worker sleeps, and
is left alone for a while: processors are scarce.
"""

from __future__ import annotations

from string import Template

from dualgrad.runtime.program import POOL_WORKERS

MAX_THREADS = 256
# chunks per job; the counts have 16 bits, and the bottom count overshoots by one
BATCH = 32768
CLOSED = 0xFFFFFFFF

FEW = 3  # chunks of a job for which no worker is woken
RESTS = 40  # times as long as workers spin, the time after a pull in which none is woken
_LOOKS = 4  # of a waiting caller at the workers before it sleeps
_BRIEF_NANOSECONDS = 200_000  # of sleep between further looks

_RECORDS = 64
RECORD_WORDS = 8

# i64 index of each word in the record of a worker
RECORD = {
    "pool": 0,  # what it is started with
    "tid": 1,
    "kernel": 2,  # the kernel's id of the thread, 0 before it runs
    "working": 3,  # 1 while it has a chunk, and a little before and after
    "pulled": 4,  # 1 while the caller has it on its own processor
    "seen": 5,  # its processor time in ns when a waiting caller last looked
}

# i64 index of each word; words that different sides write are 64 bytes apart
WORDS = {
    "state": 0,
    "n": 8,  # the job
    "fn": 9,
    "ctx": 10,
    "base": 11,
    "done": 16,
    "sleepers": 24,
    "wake": 25,  # i32 futex
    "waiting": 26,  # i32 futex: 1 while the caller sleeps
    "busy": 32,
    "limit": POOL_WORKERS,  # workers that may take chunks
    "spin": 41,  # pauses of a worker before sleeping
    "patience": 44,  # pauses of a waiting caller between looks at the workers
    "rare": 45,  # cycles after which a job of few chunks counts as the first one again
    "last": 46,  # cycle count at the last job of few chunks that found workers asleep
    "park": 42,  # i32 futex
    "started": 43,  # workers that exist
    "cpus": 48,  # bit mask of the CPUs allowed; 0: workers are not placed
    "mask": 49,
    "avoid": 50,  # CPU that the workers keep away from; -1: none yet
    "pulls": 51,  # workers pulled during the running job
    "own": 52,  # bit mask of the CPU that they are pulled to
    "all.pulls": 53,  # pulls since the pool started
    "pulled.at": 54,  # cycle count after the last job with a pull
    "rest": 55,  # cycles after that in which no worker is woken
    "records": _RECORDS,  # RECORD of each worker; that of tid 0 is not used
}
POOL_WORDS = _RECORDS + RECORD_WORDS * MAX_THREADS

SYMBOLS = ("pool", "parallel_for")
SYMBOLS_THREADED = (*SYMBOLS, "worker", "set_limit", "pauses")

SERIAL = """\
@pool = global [64 x i64] zeroinitializer, align 64

define void @parallel_for(ptr %pool, ptr %fn, ptr %ctx, i64 %n) {
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %exit
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  call void %fn(ptr %ctx, i64 %i, i64 0)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
"""

_LINUX_X86_64 = Template("""\
@pool = global [$pool_words x i64] zeroinitializer, align 64

declare void @llvm.x86.sse2.pause()
declare i64 @llvm.readcyclecounter()
declare i64 @syscall(i64, ...)
declare i32 @sched_getcpu()

; ---- system calls ------------------------------------------------------------------------------

define internal void @futex_wait(ptr %word, i32 %expected) {
  call i64 (i64, ...) @syscall(i64 202, ptr %word, i32 128, i32 %expected, ptr null)
  ret void
}

define internal void @futex_wait_briefly(ptr %word, i32 %expected) {
  %time = alloca [2 x i64]
  store [2 x i64] [i64 0, i64 $brief], ptr %time
  call i64 (i64, ...) @syscall(i64 202, ptr %word, i32 128, i32 %expected, ptr %time)
  ret void
}

define internal void @futex_wake(ptr %word, i32 %count) {
  call i64 (i64, ...) @syscall(i64 202, ptr %word, i32 129, i32 %count)
  ret void
}

; Used to learn how long a pause takes.  Result: cycles.
define i64 @pauses(i64 %n) {
entry:
  %begin = call i64 @llvm.readcyclecounter()
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  call void @llvm.x86.sse2.pause()
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  %end = call i64 @llvm.readcyclecounter()
  %cycles = sub i64 %end, %begin
  ret i64 %cycles
}

; ---- workers -----------------------------------------------------------------------------------

define ptr @worker(ptr %record) {
entry:
  %pool = load ptr, ptr %record
$record
  %tid = load i64, ptr %record.tid
$fields
  %kernel.tid = call i64 (i64, ...) @syscall(i64 186)
  store atomic i64 %kernel.tid, ptr %record.kernel release, align 8
  br label %look

look:                                         ; %spun counts looks since there was work
  %spun = phi i64 [0, %entry], [0, %finished], [0, %awake], [0, %unparked],
                  [%spun, %lost], [%spun.next, %idle]
  %state = load atomic i64, ptr %state.p acquire, align 8
  %limit = load atomic i64, ptr %limit.p monotonic, align 8    ; as new as the job in %state
  %allowed = icmp sle i64 %tid, %limit
  br i1 %allowed, label %read, label %park

read:
  %n = load atomic i64, ptr %n.p monotonic, align 8
  %fn = load atomic ptr, ptr %fn.p monotonic, align 8
  %ctx = load atomic ptr, ptr %ctx.p monotonic, align 8
  %base = load atomic i64, ptr %base.p monotonic, align 8
  %bottom = and i64 %state, 65535
  %state.high = lshr i64 %state, 16
  %top = and i64 %state.high, 65535
  %taken = add i64 %bottom, %top
  %left = icmp ult i64 %taken, %n
  br i1 %left, label %take, label %nothing

take:
  store atomic i64 1, ptr %record.working monotonic, align 8
  %state.new = add i64 %state, 65536
  %exchange = cmpxchg ptr %state.p, i64 %state, i64 %state.new acq_rel monotonic, align 8
  %mine = extractvalue {i64, i1} %exchange, 1
  br i1 %mine, label %run, label %lost
lost:
  store atomic i64 0, ptr %record.working monotonic, align 8
  br label %look

run:
  %last = sub i64 %n, 1
  %from.top = sub i64 %last, %top
  %chunk = add i64 %base, %from.top
  call void %fn(ptr %ctx, i64 %chunk, i64 %tid)
  %done.before = atomicrmw add ptr %done.p, i64 1 seq_cst, align 8
  %waiting = load atomic i32, ptr %waiting.p seq_cst, align 4
  %somebody = icmp ne i32 %waiting, 0
  br i1 %somebody, label %tell, label %finished
tell:                                         ; at worst a wake-up for nothing
  store atomic i32 0, ptr %waiting.p seq_cst, align 4
  call void @futex_wake(ptr %waiting.p, i32 1)
  br label %finished
finished:
  store atomic i64 0, ptr %record.working monotonic, align 8
  br label %look

nothing:                                      ; one that was pulled leaves the processor at once
  %spin = load atomic i64, ptr %spin.p monotonic, align 8
  %pulled = load atomic i64, ptr %record.pulled monotonic, align 8
  %at.home = icmp eq i64 %pulled, 0
  %young = icmp ult i64 %spun, %spin
  %patient = and i1 %at.home, %young
  br i1 %patient, label %idle, label %sleep
idle:
  call void @llvm.x86.sse2.pause()
  %spun.next = add i64 %spun, 1
  br label %look

sleep:                                        ; announce, then look again
  %ticket = load atomic i32, ptr %wake.p seq_cst, align 4
  %sleepers.in = atomicrmw add ptr %sleepers.p, i64 1 seq_cst, align 8
  %state.again = load atomic i64, ptr %state.p seq_cst, align 8
  %unchanged = icmp eq i64 %state.again, %state
  br i1 %unchanged, label %wait, label %awake
wait:
  call void @futex_wait(ptr %wake.p, i32 %ticket)
  br label %awake
awake:
  %sleepers.out = atomicrmw sub ptr %sleepers.p, i64 1 seq_cst, align 8
  br label %look

park:                                         ; the pool was made smaller
  %gate = load atomic i32, ptr %park.p seq_cst, align 4
  %limit.again = load atomic i64, ptr %limit.p seq_cst, align 8
  %still = icmp sgt i64 %tid, %limit.again
  br i1 %still, label %wait.parked, label %unparked
wait.parked:
  call void @futex_wait(ptr %park.p, i32 %gate)
  br label %unparked
unparked:
  br label %look
}

; Let workers 1..%limit take chunks; all others go to sleep after their present chunk.
define void @set_limit(ptr %pool, i64 %limit) {
$fields
  store atomic i64 %limit, ptr %limit.p seq_cst, align 8
  %gate = atomicrmw add ptr %park.p, i32 1 seq_cst, align 4
  call void @futex_wake(ptr %park.p, i32 2147483647)
  %ticket = atomicrmw add ptr %wake.p, i32 1 seq_cst, align 4
  call void @futex_wake(ptr %wake.p, i32 2147483647)
  ret void
}

; ---- caller ------------------------------------------------------------------------------------

; Linux may wake a worker on the caller's own CPU, where it cannot help.  So before a wake-up the
; workers' affinity leaves out the CPU that the caller runs on.
define internal void @place_workers(ptr %pool) {
entry:
$fields
  %cpus = load i64, ptr %cpus.p
  %wanted = icmp ne i64 %cpus, 0
  br i1 %wanted, label %where, label %exit
where:
  %cpu32 = call i32 @sched_getcpu()
  %cpu = sext i32 %cpu32 to i64
  %avoid = load i64, ptr %avoid.p
  %moved = icmp ne i64 %cpu, %avoid
  br i1 %moved, label %choose, label %exit
choose:
  store i64 %cpu, ptr %avoid.p
  %known = icmp ult i64 %cpu, 63              ; bit 63 is never set in the words
  %place = select i1 %known, i64 %cpu, i64 63
  %bit = shl i64 1, %place
  %others = xor i64 %bit, -1
  %rest = and i64 %cpus, %others
  %alone = icmp eq i64 %rest, 0
  %mask = select i1 %alone, i64 %cpus, i64 %rest
  store i64 %mask, ptr %mask.p
  %started = load i64, ptr %started.p
  br label %loop
loop:
  %tid = phi i64 [1, %choose], [%next, %continue]
$record_of_tid
  %kernel = load atomic i64, ptr %record.kernel acquire, align 8
  %runs = icmp ne i64 %kernel, 0              ; id 0 would mean the caller itself
  br i1 %runs, label %move, label %continue
move:
  %result = call i64 (i64, ...) @syscall(i64 203, i64 %kernel, i64 8, ptr %mask.p)
  br label %continue
continue:
  %next = add i64 %tid, 1
  %more = icmp sle i64 %next, %started
  br i1 %more, label %loop, label %exit
exit:
  ret void
}

; Pull the workers that have a chunk and have not run since the last look.  Result: how many
; workers are pulled.
define internal i64 @pull_workers(ptr %pool) {
entry:
$fields
  %time = alloca [2 x i64]
  %cpus = load i64, ptr %cpus.p
  %wanted = icmp ne i64 %cpus, 0
  br i1 %wanted, label %where, label %exit
where:
  %cpu32 = call i32 @sched_getcpu()
  %cpu = sext i32 %cpu32 to i64
  %known = icmp ult i64 %cpu, 63
  br i1 %known, label %choose, label %exit
choose:
  %bit = shl i64 1, %cpu
  store i64 %bit, ptr %own.p
  %started = load i64, ptr %started.p
  br label %loop
loop:
  %tid = phi i64 [1, %choose], [%next, %continue]
$record_of_tid
  %working = load atomic i64, ptr %record.working monotonic, align 8
  %already = load atomic i64, ptr %record.pulled monotonic, align 8
  %away = icmp ugt i64 %working, %already
  br i1 %away, label %clock, label %continue
clock:                                        ; of a thread: see clock_getcpuclockid(3)
  %kernel = load atomic i64, ptr %record.kernel acquire, align 8
  %not.kernel = xor i64 %kernel, -1
  %shifted = shl i64 %not.kernel, 3
  %clock.id = or i64 %shifted, 6
  %failed = call i64 (i64, ...) @syscall(i64 228, i64 %clock.id, ptr %time)
  %told = icmp eq i64 %failed, 0
  br i1 %told, label %compare, label %continue
compare:
  %nanoseconds.p = getelementptr i64, ptr %time, i64 1
  %seconds = load i64, ptr %time
  %nanoseconds = load i64, ptr %nanoseconds.p
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %nanoseconds
  %seen = load i64, ptr %record.seen
  store i64 %now, ptr %record.seen
  %stands = icmp eq i64 %now, %seen
  br i1 %stands, label %pull, label %continue
pull:
  store atomic i64 1, ptr %record.pulled monotonic, align 8
  %result = call i64 (i64, ...) @syscall(i64 203, i64 %kernel, i64 8, ptr %own.p)
  %pulls.before = load i64, ptr %pulls.p
  %pulls.after = add i64 %pulls.before, 1
  store i64 %pulls.after, ptr %pulls.p
  %all.before = load i64, ptr %all.pulls.p
  %all.after = add i64 %all.before, 1
  store i64 %all.after, ptr %all.pulls.p
  br label %continue
continue:
  %next = add i64 %tid, 1
  %more = icmp sle i64 %next, %started
  br i1 %more, label %loop, label %exit
exit:
  %pulls = load i64, ptr %pulls.p
  ret i64 %pulls
}

; Send the pulled workers away.
define internal void @release_workers(ptr %pool) {
entry:
$fields
  store i64 0, ptr %pulls.p
  %now = call i64 @llvm.readcyclecounter()
  store i64 %now, ptr %pulled.at.p
  store i64 -1, ptr %avoid.p
  call void @place_workers(ptr %pool)
  %started = load i64, ptr %started.p
  br label %loop
loop:
  %tid = phi i64 [1, %entry], [%next, %loop]
$record_of_tid
  store atomic i64 0, ptr %record.pulled monotonic, align 8
  %next = add i64 %tid, 1
  %more = icmp sle i64 %next, %started
  br i1 %more, label %loop, label %exit
exit:
  ret void
}

; One job of 1..$batch chunks, numbered from %base.  The caller holds `busy`.
define internal void @run_job(ptr %pool, ptr %fn, ptr %ctx, i64 %base, i64 %n) {
entry:
$fields
  %old = load atomic i64, ptr %state.p monotonic, align 8
  %closed = or i64 %old, $closed
  %was.open = atomicrmw xchg ptr %state.p, i64 %closed seq_cst, align 8
  store atomic i64 %n, ptr %n.p monotonic, align 8
  store atomic ptr %fn, ptr %fn.p monotonic, align 8
  store atomic ptr %ctx, ptr %ctx.p monotonic, align 8
  store atomic i64 %base, ptr %base.p monotonic, align 8
  store atomic i64 0, ptr %done.p monotonic, align 8
  %open = add i64 %closed, 1                  ; next epoch, nothing taken
  %was.closed = atomicrmw xchg ptr %state.p, i64 %open seq_cst, align 8
  %sleepers = load atomic i64, ptr %sleepers.p seq_cst, align 8
  %asleep = icmp sgt i64 %sleepers, 0
  br i1 %asleep, label %rested, label %take

rested:                                       ; not soon after a pull
  %pulled.at = load i64, ptr %pulled.at.p
  %now = call i64 @llvm.readcyclecounter()
  %since = sub i64 %now, %pulled.at
  %rest = load i64, ptr %rest.p
  %resting = icmp ult i64 %since, %rest
  br i1 %resting, label %take, label %call.workers

call.workers:
  call void @place_workers(ptr %pool)
  %ticket = atomicrmw add ptr %wake.p, i32 1 seq_cst, align 4
  %n32 = trunc i64 %n to i32
  %helpers = sub i32 %n32, 1
  call void @futex_wake(ptr %wake.p, i32 %helpers)
  br label %take

take:
  %state = atomicrmw add ptr %state.p, i64 1 acq_rel, align 8
  %bottom = and i64 %state, 65535
  %state.high = lshr i64 %state, 16
  %top = and i64 %state.high, 65535
  %taken = add i64 %bottom, %top
  %mine = icmp ult i64 %taken, %n
  br i1 %mine, label %run, label %join
run:
  %chunk = add i64 %base, %bottom
  call void %fn(ptr %ctx, i64 %chunk, i64 0)
  %done.before = atomicrmw add ptr %done.p, i64 1 release, align 8
  br label %take

join:                                         ; %turn counts looks at the workers
  %turn = phi i64 [0, %take], [%turn.next, %again], [$last_turn, %awake]
  br label %spin
spin:
  %spun = phi i64 [0, %join], [%spun.next, %idle]
  %done = load atomic i64, ptr %done.p acquire, align 8
  %complete = icmp eq i64 %done, %n
  br i1 %complete, label %finish, label %missing
missing:
  %patience = load atomic i64, ptr %patience.p monotonic, align 8
  %patient = icmp ult i64 %spun, %patience
  br i1 %patient, label %idle, label %inspect
idle:
  call void @llvm.x86.sse2.pause()
  %spun.next = add i64 %spun, 1
  br label %spin
inspect:
  %pulled = call i64 @pull_workers(ptr %pool)
  %pulled.some = icmp ne i64 %pulled, 0
  %turn.next = add i64 %turn, 1
  %late = icmp ugt i64 %turn.next, $last_turn
  %leave = or i1 %pulled.some, %late
  br i1 %leave, label %sleep, label %again
again:
  br label %join
sleep:                                        ; announce, then look again
  store atomic i32 1, ptr %waiting.p seq_cst, align 4
  %done.again = load atomic i64, ptr %done.p seq_cst, align 8
  %just.now = icmp eq i64 %done.again, %n
  br i1 %just.now, label %awake, label %wait
wait:                                         ; not for ever: a worker may stop running meanwhile
  call void @futex_wait_briefly(ptr %waiting.p, i32 1)
  br label %awake
awake:
  store atomic i32 0, ptr %waiting.p seq_cst, align 4
  br label %join
finish:
  %pulls = load i64, ptr %pulls.p
  %visitors = icmp ne i64 %pulls, 0
  br i1 %visitors, label %release, label %exit
release:
  call void @release_workers(ptr %pool)
  br label %exit
exit:
  ret void
}

define void @parallel_for(ptr %pool, ptr %fn, ptr %ctx, i64 %n) {
entry:
$fields
  %many = icmp sgt i64 %n, 1
  %limit = load atomic i64, ptr %limit.p monotonic, align 8
  %helped = icmp sgt i64 %limit, 0
  %worthwhile = and i1 %many, %helped
  br i1 %worthwhile, label %size, label %serial
size:
  %few = icmp ule i64 %n, $few
  %sleepers = load atomic i64, ptr %sleepers.p monotonic, align 8
  %asleep = icmp sgt i64 %sleepers, 0
  %doubtful = and i1 %few, %asleep
  br i1 %doubtful, label %clock, label %lock
clock:
  %now = call i64 @llvm.readcyclecounter()
  %last = load atomic i64, ptr %last.p monotonic, align 8
  store atomic i64 %now, ptr %last.p monotonic, align 8
  %since = sub i64 %now, %last
  %rare = load i64, ptr %rare.p
  %first = icmp ugt i64 %since, %rare
  br i1 %first, label %serial, label %lock
lock:                                         ; a nested or second caller works alone
  %exchange = cmpxchg ptr %busy.p, i64 0, i64 1 acquire monotonic, align 8
  %free = extractvalue {i64, i1} %exchange, 1
  br i1 %free, label %jobs, label %serial

jobs:
  %base = phi i64 [0, %lock], [%base.next, %jobs]
  %left = sub i64 %n, %base
  %fits = icmp sle i64 %left, $batch
  %count = select i1 %fits, i64 %left, i64 $batch
  call void @run_job(ptr %pool, ptr %fn, ptr %ctx, i64 %base, i64 %count)
  %base.next = add i64 %base, %count
  %more.jobs = icmp slt i64 %base.next, %n
  br i1 %more.jobs, label %jobs, label %unlock
unlock:
  store atomic i64 0, ptr %busy.p release, align 8
  ret void

serial:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %exit
loop:
  %i = phi i64 [0, %serial], [%next, %loop]
  call void %fn(ptr %ctx, i64 %i, i64 0)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
""")


def linux_x86_64() -> str:
    """The threaded version, for Linux on x86-64."""
    fields = [
        f"  %{name}.p = getelementptr i64, ptr %pool, i64 {index}" for name, index in WORDS.items()
    ]
    record = [
        f"  %record.{name} = getelementptr i64, ptr %record, i64 {index}"
        for name, index in RECORD.items()
    ]
    one = f"  %record = getelementptr [{RECORD_WORDS} x i64], ptr %records.p, i64 %tid"
    return _LINUX_X86_64.substitute(
        fields="\n".join(fields),
        record="\n".join(record),
        record_of_tid="\n".join([one, *record]),
        pool_words=POOL_WORDS,
        batch=BATCH,
        closed=CLOSED,
        few=FEW,
        last_turn=_LOOKS - 1,
        brief=_BRIEF_NANOSECONDS,
    )
