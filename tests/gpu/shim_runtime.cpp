// Runs the kernels of a text that was compiled behind shim.h.
//
// The blocks of a launch run one after another, the threads of a block as fibers of the one thread of the
// CPU. A fiber runs whole threads in a loop until one of them has to wait; only that thread keeps the
// fiber. What is undefined on a GPU and can be noticed here ends the launch with an error.
#include "shim.h"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <sys/mman.h>

// DG_SANITIZE: texts, but not this file, are compiled with the address sanitizer.
#ifdef DG_SANITIZE
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Elsewhere fibers are switched by the C library, which costs some ten times as much.
#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(USE_UCONTEXT)
#define USE_UCONTEXT
#endif
#ifdef USE_UCONTEXT
#include <ucontext.h>
#endif

namespace {

constexpr unsigned max_threads = 1024, lanes = 32;
constexpr size_t stack_bytes = 256 * 1024, guard_bytes = 64 * 1024;

enum Code { done, divergent_barrier, deadlock, bad_mask, bad_lane, memory_fault };

// What ended a launch. Python reads it.
struct Failure {
    int code;
    int line;         // of the text, 0 where no line is to blame
    unsigned thread;  // within its block
    unsigned block;
    char message[480];
};

// A thread's place in the text while it waits, and what it gives to and takes from the others there.
struct Wait {
    const char* call;
    int line;
    unsigned mask;
    int source;
    unsigned long long value;
};

struct Fiber {
#ifdef USE_UCONTEXT
    ucontext_t context;
#else
    void* stack_pointer;
#endif
    char* stack;
    void* fake_stack;  // the address sanitizer's
    unsigned thread;
    Wait wait;
    Fiber* next;
};

struct Barrier {
    unsigned arrived;
    Fiber* waiting;  // the last to come is the head
    Wait first;
};

struct Warp {
    unsigned alive;      // lanes that have not ended
    unsigned claimed;    // lanes that some group below waits for
    Barrier groups[32];  // by the lowest lane of the mask
};

struct Scheduler {
    DgText* text;
    const DgKernel* kernel;
    const unsigned long long* arguments;
    Failure* failure;
    uint64_t random;
    unsigned tries, fastest;  // see take_ready
    unsigned threads, started, alive;
    unsigned order[max_threads];
    Fiber fibers[max_threads];
    unsigned fiber_count;
    Fiber* spare;
    Fiber* ready[max_threads];
    unsigned ready_count;
    Fiber main;
    const void* main_stack;
    size_t main_stack_bytes;
    Fiber* current;
    Barrier barrier;
    Warp warps[max_threads / lanes];
    sigjmp_buf escape;
    bool can_escape;
};
Scheduler s;

// ---- switching fibers -------------------------------------------------------------------------------

void run_threads();

#ifdef USE_UCONTEXT
void prepare(Fiber* fiber) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = stack_bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, run_threads, 0);
}
#elif defined(__x86_64__)
extern "C" void dg_switch(void** from, void* to);
asm(R"(
.text
.type dg_switch, @function
dg_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size dg_switch, .-dg_switch
)");

void prepare(Fiber* fiber) {
    void** top = reinterpret_cast<void**>(fiber->stack + stack_bytes);
    *--top = nullptr;  // a return address for run_threads, which never returns
    *--top = reinterpret_cast<void*>(&run_threads);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber->stack_pointer = top;
}
#elif defined(__aarch64__)
extern "C" void dg_switch(void** from, void* to);
asm(R"(
.text
.type dg_switch, %function
dg_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size dg_switch, .-dg_switch
)");

void prepare(Fiber* fiber) {
    char* saved = fiber->stack + stack_bytes - 160;
    memset(saved, 0, 160);
    *reinterpret_cast<void**>(saved + 88) = reinterpret_cast<void*>(&run_threads);  // x30
    fiber->stack_pointer = saved;
}
#endif

// The sanitizer has to know which stack is in use.
#ifdef DG_SANITIZE
void start_switch(Fiber* from, Fiber* to, bool retired) {
    void** fake_stack = retired ? nullptr : &from->fake_stack;
    if (to == &s.main)
        __sanitizer_start_switch_fiber(fake_stack, s.main_stack, s.main_stack_bytes);
    else
        __sanitizer_start_switch_fiber(fake_stack, to->stack, stack_bytes);
}

void finish_switch() { __sanitizer_finish_switch_fiber(s.current->fake_stack, nullptr, nullptr); }

// On a stack that is new: it is main which has switched to the first of a launch.
void finish_first_switch() {
    bool first = !s.main_stack_bytes;
    __sanitizer_finish_switch_fiber(
        nullptr, first ? &s.main_stack : nullptr, first ? &s.main_stack_bytes : nullptr);
}

// Threads that a failure has stopped never leave their frames.
void forget_frames(const Fiber& fiber) { __asan_unpoison_memory_region(fiber.stack, stack_bytes); }
#else
void start_switch(Fiber*, Fiber*, bool) {}
void finish_switch() {}
void finish_first_switch() {}
void forget_frames(const Fiber&) {}
#endif

void switch_to(Fiber* to, bool retired = false) {
    Fiber* from = s.current;
    s.current = to;
    s.text->thread.x = to->thread;
    start_switch(from, to, retired);
#ifdef USE_UCONTEXT
    swapcontext(&from->context, &to->context);
#else
    dg_switch(&from->stack_pointer, to->stack_pointer);
#endif
    finish_switch();
}

Fiber* new_fiber() {
    Fiber* fiber = s.spare;
    if (fiber) {
        s.spare = fiber->next;
    } else {
        fiber = &s.fibers[s.fiber_count++];
        int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* memory =
            mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE, kind, -1, 0);
        mprotect(memory, guard_bytes, PROT_NONE);
        fiber->stack = static_cast<char*>(memory) + guard_bytes;
    }
    prepare(fiber);
    return fiber;
}

// ---- failures ---------------------------------------------------------------------------------------

void record(Code code, int line, unsigned thread, const char* format, va_list values) {
    s.failure->code = code;
    s.failure->line = line;
    s.failure->thread = thread;
    s.failure->block = s.text->block.x;
    vsnprintf(s.failure->message, sizeof s.failure->message, format, values);
}

// Ends the launch; the fibers stay where they are and are used anew by the next block.
__attribute__((format(printf, 4, 5))) void fail(
    Code code, int line, unsigned thread, const char* format, ...) {
    va_list values;
    va_start(values, format);
    record(code, line, thread, format, values);
    va_end(values);
    switch_to(&s.main);
}

void on_signal(int number, siginfo_t* info, void*) {
    if (!s.can_escape) {
        signal(number, SIG_DFL);
        return;
    }
    s.failure->code = memory_fault;
    s.failure->line = 0;
    s.failure->thread = s.text->thread.x;
    s.failure->block = s.text->block.x;
    const char* what = number == SIGFPE ? "an integer division by zero" : "an access to an invalid address";
    snprintf(s.failure->message, sizeof s.failure->message, "%s (%p)", what, info->si_addr);
    siglongjmp(s.escape, 1);
}

// While a kernel runs, invalid accesses end the launch and not the process; the sanitizer, where there
// is one, has more to say about them.
struct SignalGuard {
#ifndef DG_SANITIZE
    static constexpr int numbers[3] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction before[3];
    stack_t stack_before;
    alignas(16) static inline char stack[64 * 1024];

    SignalGuard() {
        stack_t own = {};
        own.ss_sp = stack;
        own.ss_size = sizeof stack;
        sigaltstack(&own, &stack_before);
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;  // the escape restores no mask
        for (int i = 0; i < 3; i++) sigaction(numbers[i], &action, &before[i]);
    }
    ~SignalGuard() {
        for (int i = 0; i < 3; i++) sigaction(numbers[i], &before[i], nullptr);
        sigaltstack(&stack_before, nullptr);
    }
#endif
};

// ---- the order of threads ---------------------------------------------------------------------------

unsigned pick(unsigned count) {
    s.random ^= s.random << 13;
    s.random ^= s.random >> 7;
    s.random ^= s.random << 17;
    return static_cast<unsigned>((s.random >> 32) * count >> 32);
}

void shuffle_order() {
    for (unsigned i = 0; i < s.threads; i++) {
        unsigned j = pick(i + 1);
        s.order[i] = s.order[j];
        s.order[j] = i;
    }
}

// Which warp of a block is the fastest.
unsigned rank(const Fiber* fiber) { return (fiber->thread / lanes) ^ s.fastest; }

// Any of them; with an odd seed most likely one of the fastest warp, so that warps get far apart: a
// thread goes on for long before one of another warp, that has left the same barrier, takes a step.
Fiber* take_ready() {
    unsigned i = pick(s.ready_count);
    for (unsigned k = 0; k < s.tries; k++) {
        unsigned other = pick(s.ready_count);
        if (rank(s.ready[other]) < rank(s.ready[i])) i = other;
    }
    Fiber* fiber = s.ready[i];
    s.ready[i] = s.ready[--s.ready_count];
    return fiber;
}

// Describes the waiting threads of one barrier after the text written so far.
int describe(const Barrier& barrier, char* text, int room) {
    if (!barrier.arrived || room <= 0) return 0;
    const Wait& wait = barrier.first;
    return snprintf(text, room, "%s%u at line %d (%s)", "; ", barrier.arrived, wait.line, wait.call);
}

void fail_deadlock() {
    char waiting[400] = "";
    int used = describe(s.barrier, waiting, sizeof waiting);
    int line = s.barrier.arrived ? s.barrier.first.line : 0;
    for (unsigned w = 0; w < (s.threads + lanes - 1) / lanes; w++)
        for (const Barrier& group : s.warps[w].groups) {
            if (group.arrived && !line) line = group.first.line;
            int room = static_cast<int>(sizeof waiting) - used;
            int more = describe(group, waiting + used, room);
            used += more < room ? more : 0;
        }
    fail(deadlock, line, 0, "%u threads wait for others that never come%s", s.alive, waiting);
}

// Suspends the current thread, which has queued itself at a barrier.
void suspend() {
    bool fresh = s.started < s.threads;
    if (fresh && s.ready_count) fresh = pick(2);
    if (fresh) {
        switch_to(new_fiber());
    } else if (s.ready_count) {
        Fiber* next = take_ready();
        if (next != s.current) switch_to(next);
    } else {
        fail_deadlock();
    }
}

// ---- barriers ---------------------------------------------------------------------------------------

void release(Barrier& barrier) {
    for (Fiber* fiber = barrier.waiting; fiber;) {
        Fiber* next = fiber->next;
        if (fiber != s.current) s.ready[s.ready_count++] = fiber;
        fiber = next;
    }
    barrier.arrived = 0;
    barrier.waiting = nullptr;
}

void arrive(Barrier& barrier) {
    s.current->next = barrier.waiting;
    barrier.waiting = s.current;
    if (!barrier.arrived++) barrier.first = s.current->wait;
}

void sync_threads(int line) {
    unsigned thread = s.current->thread;
    if (s.barrier.arrived && s.barrier.first.line != line)
        fail(divergent_barrier, line, thread,
             "__syncthreads() at line %d, while other threads of the block wait at the one of line %d",
             line, s.barrier.first.line);
    s.current->wait = {"__syncthreads", line, ~0u, -1, 0};
    arrive(s.barrier);
    if (s.barrier.arrived == s.alive)
        release(s.barrier);
    else
        suspend();
}

// Every lane of the group gets the value of its source, which must be one of them.
void exchange(Barrier& group, unsigned present) {
    unsigned long long values[lanes];
    for (Fiber* fiber = group.waiting; fiber; fiber = fiber->next)
        values[fiber->thread % lanes] = fiber->wait.value;
    for (Fiber* fiber = group.waiting; fiber; fiber = fiber->next) {
        int source = fiber->wait.source;
        if (source < 0 || source >= static_cast<int>(lanes) || !(present >> source & 1))
            fail(bad_lane, fiber->wait.line, fiber->thread,
                 "%s reads lane %d, which is not among the lanes %#x that take part",
                 fiber->wait.call, source, present);
        fiber->wait.value = values[source];
    }
}

void complete(Warp& warp, Barrier& group) {
    if (group.first.source >= 0) exchange(group, group.first.mask & warp.alive);
    warp.claimed &= ~group.first.mask;
    release(group);
}

bool all_arrived(const Warp& warp, const Barrier& group) {
    return group.arrived && group.arrived == unsigned(__builtin_popcount(group.first.mask & warp.alive));
}

void check_group(const Warp& warp, const Barrier& group, const Wait& wait) {
    unsigned thread = s.current->thread;
    if (!(wait.mask >> thread % lanes & 1))
        fail(bad_mask, wait.line, thread, "%s with mask %#x, which does not name the calling lane %u",
             wait.call, wait.mask, thread % lanes);
    if (group.arrived && (group.first.line != wait.line || group.first.mask != wait.mask))
        fail(bad_mask, wait.line, thread,
             "%s with mask %#x, while other lanes wait at line %d (%s) with mask %#x", wait.call,
             wait.mask, group.first.line, group.first.call, group.first.mask);
    if (!group.arrived && warp.claimed & wait.mask)
        fail(bad_mask, wait.line, thread,
             "%s with mask %#x, while lanes %#x wait with another mask", wait.call, wait.mask,
             warp.claimed & wait.mask);
}

void meet(const Wait& wait) {
    Warp& warp = s.warps[s.current->thread / lanes];
    Barrier& group = warp.groups[wait.mask ? __builtin_ctz(wait.mask) : 0];
    check_group(warp, group, wait);
    s.current->wait = wait;
    arrive(group);
    warp.claimed |= wait.mask;
    if (all_arrived(warp, group))
        complete(warp, group);
    else
        suspend();
}

void sync_warp(int line, unsigned mask) { meet({"__syncwarp", line, mask, -1, 0}); }

unsigned long long shuffle(
    const char* call, int line, unsigned mask, int width, int source, unsigned long long value) {
    if (width < 1 || width > static_cast<int>(lanes) || width & (width - 1))
        fail(bad_lane, line, s.current->thread, "%s with width %d, not a power of two up to 32", call, width);
    meet({call, line, mask, source, value});
    return s.current->wait.value;
}

// ---- blocks -----------------------------------------------------------------------------------------

// A thread that ends may be the last one that others wait for.
void end_thread(unsigned thread) {
    s.alive--;
    if (s.barrier.arrived && s.barrier.arrived == s.alive) release(s.barrier);
    Warp& warp = s.warps[thread / lanes];
    warp.alive &= ~(1u << thread % lanes);
    if (warp.claimed)
        for (Barrier& group : warp.groups)
            if (all_arrived(warp, group)) complete(warp, group);
}

// What every fiber runs. It never returns: a fiber without work is started anew by new_fiber.
void run_threads() {
    finish_first_switch();
    while (s.started < s.threads) {
        unsigned thread = s.order[s.started++];
        s.current->thread = s.text->thread.x = thread;
        s.kernel->run(s.arguments);
        end_thread(thread);
    }
    if (!s.ready_count && s.alive) fail_deadlock();
    s.current->next = s.spare;
    s.spare = s.current;
    switch_to(s.ready_count ? take_ready() : &s.main, true);
}

void poison(char* begin, char* end) {
#ifdef DG_SANITIZE
    // Not memset, which the sanitizer watches: there are red zones between the variables.
    for (volatile char* byte = begin; byte < end; byte++) *byte = static_cast<char>(0xff);
#else
    if (begin != end) memset(begin, 0xff, end - begin);
#endif
}

void start_block() {
    poison(s.kernel->shared_begin, s.kernel->shared_end);
    poison(s.text->shared_begin, s.text->shared_end);
    s.started = s.ready_count = 0;
    s.alive = s.threads;
    s.barrier = {};
    s.spare = nullptr;
    for (unsigned i = s.fiber_count; i--;) {
        s.fibers[i].next = s.spare;
        s.spare = &s.fibers[i];
    }
    for (unsigned first = 0; first < s.threads; first += lanes) {
        unsigned count = s.threads - first;
        s.warps[first / lanes] = {};
        s.warps[first / lanes].alive = count < lanes ? (1u << count) - 1 : ~0u;
    }
    s.fastest = pick(max_threads / lanes);
    shuffle_order();
}

unsigned common_divisor(unsigned a, unsigned b) { return b ? common_divisor(b, a % b) : a; }

// The distance from a block to the next one that runs: 1, -1, or one by chance without a common divisor.
unsigned block_step(unsigned blocks, unsigned seed) {
    if (seed % 3 == 0 || blocks < 3) return seed % 2 ? blocks - 1 : 1;
    if (seed % 3 == 1) return blocks - 1;
    unsigned step = 1 + pick(blocks - 1);
    while (common_divisor(step, blocks) != 1) step--;
    return step;
}

void run_blocks(unsigned blocks, unsigned seed) {
    unsigned step = block_step(blocks, seed);
    unsigned block = step == 1 ? 0 : blocks - 1;
    for (unsigned done_blocks = 0; done_blocks < blocks && !s.failure->code; done_blocks++) {
        s.text->block.x = block;
        start_block();
        s.current = &s.main;
        switch_to(new_fiber());
        block = (static_cast<uint64_t>(block) + step) % blocks;
    }
}

}  // namespace

// Runs one launch to its end. The seed decides the orders of blocks and of threads. 0, or the code of
// the failure.
extern "C" int dg_launch(
    DgText* text, unsigned kernel, unsigned blocks, unsigned threads, const unsigned long long* arguments,
    unsigned long long seed, Failure* failure) {
    *failure = {};
    const DgKernel& entry = text->kernels[kernel];
    text->threads.x = threads;
    text->blocks.x = blocks;
    text->sync_threads = sync_threads;
    text->sync_warp = sync_warp;
    text->shuffle = shuffle;
    s.text = text;
    s.kernel = &entry;
    s.arguments = arguments;
    s.failure = failure;
    s.threads = threads;
    s.random = (seed + 1) * 0x9e3779b97f4a7c15ull;
    s.tries = seed % 2 ? 7 : 0;
    s.main_stack_bytes = 0;
    [[maybe_unused]] SignalGuard guard;
    if (!sigsetjmp(s.escape, 0)) {
        s.can_escape = true;
        run_blocks(blocks, static_cast<unsigned>(seed));
    }
    s.can_escape = false;
    if (failure->code)
        for (unsigned i = 0; i < s.fiber_count; i++) forget_frames(s.fibers[i]);
    return failure->code;
}

// Declares memory around an allocation out of bounds, or ends that.
extern "C" void dg_guard(void* address, size_t bytes, bool on) {
#ifdef DG_SANITIZE
    (on ? __asan_poison_memory_region : __asan_unpoison_memory_region)(address, bytes);
#else
    (void)address, (void)bytes, (void)on;
#endif
}
