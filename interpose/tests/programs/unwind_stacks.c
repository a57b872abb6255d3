/* Stacks of all kinds, for the profiler's unwinder, which is `look->walk`; beside it, at the same place, glibc's backtrace().
 *
 * Compiled without frame pointers as a library; interpose/profiler/tests/unwind.rs calls the cases by name. */
#include <alloca.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { FRAMES = 64 };

struct look {
	void (*walk)(struct look *);
	/* What backtrace() says. */
	void *reference[FRAMES];
	size_t references;
	/* What walk says: pairs of address and slot. */
	uintptr_t steps[FRAMES][2];
	size_t count;
	/* Called after each look: compares. */
	void (*compare)(struct look *);
	/* What a case wants to say. */
	uintptr_t note;
};

#define APART __attribute__((noinline, noclone, noipa))
/* Keeps a call from becoming a jump. */
#define STAY() __asm__ volatile("" ::: "memory")

static void look_here(struct look *look) __attribute__((always_inline));
static inline void look_here(struct look *look)
{
	look->references = backtrace(look->reference, FRAMES);
	look->walk(look);
	look->compare(look);
}

/* --- ordinary frames --- */

APART void plain(struct look *look)
{
	look_here(look);
	STAY();
}

APART static int deeper(struct look *look, int depth)
{
	int result = depth ? deeper(look, depth - 1) + depth : 1;
	if (!depth)
		look_here(look);
	STAY();
	return result;
}

APART void recursion(struct look *look)
{
	for (int depth = 0; depth < 200; depth += 7)
		deeper(look, depth);
	STAY();
}

APART static void with_alloca(struct look *look, size_t bytes)
{
	char *memory = alloca(bytes);
	memset(memory, 1, bytes);
	look_here(look);
	__asm__ volatile("" ::"r"(memory) : "memory");
}

/* An over-aligned array and alloca together: GCC addresses the caller's frame through a register of its own. */
APART static void realigned(struct look *look, size_t bytes)
{
	_Alignas(128) char aligned[256];
	char *memory = alloca(bytes);
	memset(aligned, 1, sizeof aligned);
	memset(memory, 1, bytes);
	with_alloca(look, bytes + 1);
	__asm__ volatile("" ::"r"(memory), "r"(aligned) : "memory");
}

APART void frames_of_variable_size(struct look *look)
{
	for (size_t bytes = 1; bytes < 20000; bytes = bytes * 3 + 5)
		realigned(look, bytes);
	STAY();
}

APART void large_frame(struct look *look)
{
	volatile char memory[100000];
	memory[0] = memory[sizeof memory - 1] = 1;
	look_here(look);
	memory[1] = 2;
}

APART static long all_registers(struct look *look, long a, long b, long c, long d, long e)
{
	long f = a * b, g = b * c, h = c * d, i = d * e, j = e * a, k = a ^ e;
	look_here(look);
	STAY();
	return a + b * c - d + e + f * g + h * i - j * k;
}

APART void preserved_registers(struct look *look)
{
	look->note = (uintptr_t)all_registers(look, 1, 2, 3, 4, 5);
	STAY();
}

static struct look *of_sort;

APART static int order(const void *a, const void *b)
{
	plain(of_sort);
	STAY();
	return *(const int *)a - *(const int *)b;
}

APART void through_libc(struct look *look)
{
	int numbers[] = { 3, 1, 2 };
	of_sort = look;
	qsort(numbers, 3, sizeof *numbers, order);
	STAY();
}

static jmp_buf back;

/* The call is the last instruction: the return address belongs to the next function. */
APART __attribute__((noreturn)) static void leave(struct look *look)
{
	plain(look);
	longjmp(back, 1);
}

APART __attribute__((noreturn)) static void leave_by_another(struct look *look)
{
	leave(look);
}

APART void noreturn_tail(struct look *look)
{
	if (!setjmp(back))
		leave_by_another(look);
	STAY();
}

/* --- signals --- */

static struct look *of_signal;

APART static void handle(int signal)
{
	(void)signal;
	plain(of_signal);
	STAY();
}

static void on_signal(int signal, void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
	sigaction(signal, &action, NULL);
}

APART void signal_handler(struct look *look)
{
	of_signal = look;
	on_signal(SIGUSR1, handle, 0);
	raise(SIGUSR1);
	STAY();
}

/* On a stack of its own, which is as likely above as below the interrupted one. */
APART void signal_stack(struct look *look)
{
	size_t size = 64 * 1024;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stack_t stack = { .ss_sp = memory, .ss_size = size }, old;
	of_signal = look;
	sigaltstack(&stack, &old);
	on_signal(SIGUSR2, handle, SA_ONSTACK);
	raise(SIGUSR2);
	sigaltstack(&old, NULL);
	munmap(memory, size);
}

/* A fault at a function's first instruction: the one before it is not its own. */
__asm__(".text\n.type faults, @function\nfaults:\n.cfi_startproc\nud2\nret\n.cfi_endproc\n.size faults, . - faults\n");
void faults(void);

APART static void skip_fault(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)info;
	plain(of_signal);
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

APART void fault_at_the_start(struct look *look)
{
	struct sigaction action = { .sa_sigaction = skip_fault, .sa_flags = SA_SIGINFO };
	of_signal = look;
	sigaction(SIGILL, &action, NULL);
	faults();
	STAY();
}

/* The processor's trap flag: a look after every single instruction of some calls, those to the linkage table and the lazy linker included. */
APART static void trapped(int signal)
{
	(void)signal;
	look_here(of_signal);
	of_signal->note++;
	STAY();
}

#define FLAGS(name, change) \
	__asm__(".text\n.type " name ", @function\n" name ":\n.cfi_startproc\npushfq\n.cfi_adjust_cfa_offset 8\n" change ", (%rsp)\n" \
		"popfq\n.cfi_adjust_cfa_offset -8\nret\n.cfi_endproc\n.size " name ", . - " name "\n")
FLAGS("trap_on", "orq $0x100");
FLAGS("trap_off", "andq $~0x100");
void trap_on(void);
void trap_off(void);

APART static long stepped(int n)
{
	_Alignas(64) char aligned[64];
	snprintf(aligned, sizeof aligned, "%d %s", n, "x");
	return n < 2 ? strtol(aligned, NULL, 10) : stepped(n - 1) + labs(n) + (long)strcspn(aligned, " ");
}

APART void every_instruction(struct look *look)
{
	of_signal = look;
	look->note = 0;
	on_signal(SIGTRAP, trapped, 0);
	trap_on();
	long result = stepped(3);
	trap_off();
	if (!result)
		abort();
}

/* --- stacks that are not the thread's --- */

static ucontext_t caller_context;
static struct look *of_coroutine;
static void (*in_coroutine)(struct look *);

static void coroutine_main(void)
{
	in_coroutine(of_coroutine);
	STAY();
}

static void on_coroutine(struct look *look, char *stack, size_t size, void (*body)(struct look *))
{
	ucontext_t context;
	getcontext(&context);
	context.uc_stack.ss_sp = stack;
	context.uc_stack.ss_size = size;
	context.uc_link = &caller_context;
	of_coroutine = look;
	in_coroutine = body;
	makecontext(&context, coroutine_main, 0);
	swapcontext(&caller_context, &context);
}

/* Up to the first byte of a page that cannot be read. */
APART void coroutine(struct look *look)
{
	size_t size = 256 * 1024, page = 4096;
	char *memory = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(memory + size, page, PROT_NONE);
	on_coroutine(look, memory, size, recursion);
	on_coroutine(look, memory, size, frames_of_variable_size);
	on_coroutine(look, memory, size, plain);
	munmap(memory, size + page);
}

APART static void measured(struct look *look)
{
	look->note = (uintptr_t)__builtin_frame_address(0);
	look->walk(look);
	STAY();
}

/* How much stack a walk takes: the lowest byte of a painted stack that has changed. */
APART void measure(struct look *look)
{
	size_t size = 256 * 1024, untouched = 0;
	unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int round = 0; round < 2; round++) {
		memset(memory, 0xa5, size);
		on_coroutine(look, (char *)memory, size, measured);
		for (untouched = 0; memory[untouched] == 0xa5; untouched++)
			;
	}
	look->note -= (uintptr_t)(memory + untouched);
	munmap(memory, size);
}

static void *in_thread(void *argument)
{
	plain(argument);
	STAY();
	return NULL;
}

/* look->note: bytes of its stack. */
APART void small_thread(struct look *look)
{
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, look->note);
	pthread_create(&thread, &attributes, in_thread, look);
	pthread_join(thread, NULL);
}

APART void thread_on_given_stack(struct look *look)
{
	size_t size = 128 * 1024, page = 4096;
	char *memory = mmap(NULL, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attributes;
	pthread_t thread;
	mprotect(memory + page, size, PROT_READ | PROT_WRITE);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, memory + page, size);
	pthread_create(&thread, &attributes, in_thread, look);
	pthread_join(thread, NULL);
	munmap(memory, size + 2 * page);
}

/* --- code without tables: `look->reference` is the stack of the function that calls it --- */

__asm__(".text\n"
	".type with_frame_pointer, @function\nwith_frame_pointer:\n"
	"push %rbp\nmov %rsp, %rbp\nsub $32, %rsp\ncall *%rsi\nleave\nret\n"
	".size with_frame_pointer, . - with_frame_pointer\n"
	".type without_frame_pointer, @function\nwithout_frame_pointer:\n"
	"push %rbp\nmov %rdx, %rbp\ncall *%rsi\npop %rbp\nret\n"
	".size without_frame_pointer, . - without_frame_pointer\n");
void with_frame_pointer(struct look *, void (*)(struct look *), uintptr_t rbp);
void without_frame_pointer(struct look *, void (*)(struct look *), uintptr_t rbp);

APART static void look_only(struct look *look)
{
	look->walk(look);
	STAY();
}

APART void no_tables_but_frame_pointer(struct look *look)
{
	look->references = backtrace(look->reference, FRAMES);
	with_frame_pointer(look, look_only, 0);
	STAY();
}

/* Generated code: the same bytes where no library is. */
APART void generated_code(struct look *look)
{
	unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(code, (void *)(uintptr_t)with_frame_pointer, 12);
	mprotect(code, 4096, PROT_READ | PROT_EXEC);
	void (*function)(struct look *, void (*)(struct look *), uintptr_t);
	memcpy(&function, &(void *){ code }, sizeof function);
	look->references = backtrace(look->reference, FRAMES);
	function(look, look_only, 0);
	munmap(code, 4096);
}

/* %rbp is `look->note`, whatever that is. */
APART void no_tables_at_all(struct look *look)
{
	uintptr_t garbage = look->note;
	look->references = backtrace(look->reference, FRAMES);
	without_frame_pointer(look, look_only, garbage);
	STAY();
}

/* --- a library that comes and goes --- */

APART void in_a_library(struct look *look, const char *path)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		abort();
	}
	void (*call)(void (*)(void *), void *) = (void (*)(void (*)(void *), void *))(uintptr_t)dlsym(library, "call_back");
	call((void (*)(void *))plain, look);
	look->note = (uintptr_t)call;
	dlclose(library);
}
