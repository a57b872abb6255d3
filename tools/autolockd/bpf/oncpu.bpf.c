// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Who writes the table. The map is frozen: no process can write it, neither by bpf(2) nor by mapping it, not even the daemon. It runs the
// programs oncpu_write and oncpu_wipe instead (BPF_PROG_TEST_RUN).
//
// oncpu_switch runs at each context switch: the thread that leaves is not running, the thread that comes is. Nothing but two byte
// stores: no lock, no allocation, no loop. They need no order of their own: the scheduler switches to a thread on one CPU only after it was
// switched from on the other.
//
// The numbers (HEADER_SIZE, THREADS, NEIGHBOUR, UNKNOWN, RUNNING, NOT_RUNNING) come from interpose/oncpu by the build script. No kernel header is needed.

#define SECTION(name) __attribute__((section(name), used))

// All of the kernel's struct that is looked at; the loader finds the field's place in the running kernel (CO-RE).
struct task_struct {
	int pid; // the thread id, in the initial PID namespace
} __attribute__((preserve_access_index));

#define WORDS_OF_PAGE 512
#define PAGE 4096

struct page {
	unsigned long long words[WORDS_OF_PAGE];
};

struct table {
	unsigned char header[HEADER_SIZE];
	unsigned char threads[THREADS];
};

_Static_assert(HEADER_SIZE == sizeof(struct page), "the header is a page");
_Static_assert(THREADS % sizeof(struct page) == 0, "the threads are pages");
_Static_assert(PAGE / NEIGHBOUR * NEIGHBOUR == PAGE, "places do not leave their page");
_Static_assert(UNKNOWN == 0, "a wiped page has no thread known");

// A map in BTF's terms: numbers are lengths of arrays.
struct {
	int (*type)[2]; // BPF_MAP_TYPE_ARRAY
	int (*max_entries)[1];
	int (*map_flags)[1 << 10]; // BPF_F_MMAPABLE
	unsigned int *key;
	struct table *value;
} oncpu SECTION(".maps");

static void *(*const map_lookup_elem)(void *map, const void *key) = (void *)1; // BPF_FUNC_map_lookup_elem

static inline __attribute__((always_inline)) void note(struct table *table, int pid, unsigned char state)
{
	// As place() in interpose/oncpu: neighbours write different cache lines of a page.
	unsigned int tid = pid;
	unsigned int line = tid % (PAGE / NEIGHBOUR), column = tid / (PAGE / NEIGHBOUR) % NEIGHBOUR;
	unsigned int place = tid / PAGE * PAGE + line * NEIGHBOUR + column;
	// One comparison for both ends: the idle threads' 0, a byte that all CPUs would fight over, and ids past the table. Places leave both where they are.
	unsigned int above_idle = place - 1;

	// The compiler must index by what it has compared: the verifier knows no bounds of `pid`.
	asm volatile("" : "+r"(above_idle));
	if (above_idle < THREADS - 1)
		table->threads[1ul + above_idle] = state;
}

// Arguments: whether it is a preemption, the previous thread, the next one.
SECTION("tp_btf/sched_switch") int oncpu_switch(unsigned long long *arguments)
{
	struct task_struct *previous = (void *)arguments[1];
	struct task_struct *next = (void *)arguments[2];
	unsigned int key = 0;
	struct table *table = map_lookup_elem(&oncpu, &key);

	if (!table)
		return 0;
	note(table, previous->pid, NOT_RUNNING);
	note(table, next->pid, RUNNING);
	return 0;
}

// Arguments: which word of the header, the value.
SECTION("raw_tp") int oncpu_write(unsigned long long *arguments)
{
	unsigned long long word = arguments[0];
	unsigned int key = 0;
	struct page *header = map_lookup_elem(&oncpu, &key);

	if (header && word < WORDS_OF_PAGE)
		header->words[word] = arguments[1];
	return 0;
}

// Argument: which page of the table.
SECTION("raw_tp") int oncpu_wipe(unsigned long long *arguments)
{
	unsigned long long number = arguments[0];
	unsigned int key = 0;
	struct page *page = map_lookup_elem(&oncpu, &key);

	if (!page || number >= sizeof(struct table) / sizeof(struct page))
		return 0;
	page += number;
	for (int word = 0; word < WORDS_OF_PAGE; word++)
		*(volatile unsigned long long *)&page->words[word] = 0; // no memset here
	return 0;
}

// The kernel asks for it; no helper that it keeps for the GPL is used.
char terms[] SECTION("license") = "Dual MIT/GPL";
