/* Asks what an edited program may have lost: its own headers, its dynamic section, thread-local storage, constructors,
   unwinding, a zeroed .bss. Prints facts that are the same before and after an edit. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <iconv.h>
#include <link.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>
#include <execinfo.h>

#ifndef BSS
#define BSS 65536
#endif
#ifndef ALIGNED
#define ALIGNED 64
#endif
static char zeros[BSS];
static char wide[100] __attribute__((aligned(ALIGNED))) = "wide";
static _Thread_local struct { long a; char b[64]; } __attribute__((aligned(64))) local = { 42, "tls" };
static int constructed;
static const char *const relocated[] = { "relocated", "pointers" };
int exported = 5;

__attribute__((constructor)) static void construct(int argc, char **argv, char **envp)
{
	constructed = argc > 0 && argv[0] && envp ? 1 : 2;
}

__attribute__((destructor)) static void destruct(void)
{
	puts("destructor ran");
	fflush(stdout);
}

struct self {
	const ElfW(Phdr) *headers;
	size_t count;
	ElfW(Addr) base;
	size_t objects;
};

static int main_object(struct dl_phdr_info *info, size_t size, void *to)
{
	struct self *self = to;
	(void)size;
	if (self->objects++ == 0) {
		self->headers = info->dlpi_phdr;
		self->count = info->dlpi_phnum;
		self->base = info->dlpi_addr;
	}
	return 0;
}

/* Whether every page of it is mapped. */
static int mapped(ElfW(Addr) from, size_t size)
{
	long page = sysconf(_SC_PAGESIZE);
	ElfW(Addr) at = from & -page;
	return msync((void *)at, from + size - at, MS_ASYNC) == 0;
}

static void *thread(void *argument)
{
	local.a += (long)argument;
	return (void *)(local.a + ((size_t)&local % 64));
}

static int ascending(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

int main(void)
{
	struct self self = { 0 };
	dl_iterate_phdr(main_object, &self);
	const ElfW(Phdr) *kernel = (void *)getauxval(AT_PHDR);
	printf("program headers: kernel and loader agree %d, entry size %lu\n",
	       kernel == self.headers && getauxval(AT_PHNUM) == self.count, getauxval(AT_PHENT));
	int loads_mapped = 1, loads_ascending = 1, phdr_right = 1, dynamics = 0, eh_frame = 0, relro = 0, stack = -1;
	ElfW(Addr) last = 0;
	const ElfW(Dyn) *dynamic = 0;
	for (size_t i = 0; i < self.count; i++) {
		const ElfW(Phdr) *header = kernel + i;
		ElfW(Addr) address = self.base + header->p_vaddr;
		switch (header->p_type) {
		case PT_LOAD:
			loads_mapped &= header->p_memsz == 0 || mapped(address, header->p_memsz);
			loads_ascending &= address >= last;
			last = address + header->p_memsz;
			break;
		case PT_PHDR:
			phdr_right &= address == (ElfW(Addr))kernel;
			break;
		case PT_DYNAMIC:
			dynamics++;
			dynamic = (void *)address;
			break;
		case PT_GNU_EH_FRAME:
			eh_frame++;
			break;
		case PT_GNU_RELRO:
			relro++;
			break;
		case PT_GNU_STACK:
			stack = header->p_flags;
			break;
		}
	}
	printf("segments: all mapped %d, ascending %d, own header right %d, dynamic %d, eh_frame %d, relro %d, stack %d\n",
	       loads_mapped, loads_ascending, phdr_right, dynamics, eh_frame, relro, stack);
	int debug = 0;
	for (const ElfW(Dyn) *entry = dynamic; entry && entry->d_tag != DT_NULL; entry++)
		if (entry->d_tag == DT_DEBUG)
			debug = entry->d_un.d_ptr ? 1 : 2;
	printf("DT_DEBUG by the program header %d\n", debug);
	struct link_map *map = 0;
	void *program = dlopen(0, RTLD_NOW);
	printf("link map: dynamic agrees %d, exported symbol found %d\n",
	       dlinfo(program, RTLD_DI_LINKMAP, &map) == 0 && map->l_ld == dynamic, dlsym(program, "exported") == (void *)&exported);
	Dl_info where;
	printf("dladdr finds the program %d\n", dladdr((void *)main, &where) && where.dli_fbase != 0);
	size_t dirty = 0;
	for (size_t i = 0; i < sizeof zeros; i += 61)
		dirty += zeros[i] != 0;
	memset(zeros, 1, sizeof zeros);
	printf("aligned data %lu %s\n", (size_t)wide % ALIGNED, wide);
	printf("zeroed data %d, constructor %d, relocated %s %s\n", dirty == 0, constructed, relocated[0], relocated[1]);
	pthread_t threads[4];
	long sum = 0;
	for (long i = 0; i < 4; i++)
		if (pthread_create(&threads[i], 0, thread, (void *)i))
			return 2;
	for (int i = 0; i < 4; i++) {
		void *result;
		pthread_join(threads[i], &result);
		sum += (long)result;
	}
	printf("thread-local sum %ld, own %ld %s\n", sum, local.a, local.b);
	void *frames[16];
	printf("unwinds %d\n", backtrace(frames, 16) > 1);
	int numbers[] = { 3, 1, 2 };
	qsort(numbers, 3, sizeof *numbers, ascending);
	volatile double two = 2;
	printf("%d%d%d %.12f %.12f\n", numbers[0], numbers[1], numbers[2], sqrt(two), pow(two, 0.3));
	printf("locale %s, ", setlocale(LC_ALL, "C.UTF-8") ? "set" : "missing");
	struct passwd *user = getpwnam("daemon");
	printf("user %s, ", user ? user->pw_dir : "none");
	iconv_t to = iconv_open("UTF-16LE", "UTF-8");
	printf("iconv %d\n", to != (iconv_t)-1);
	void *library = dlopen("libz.so.1", RTLD_NOW);
	printf("libz %d\n", library && dlsym(library, "zlibVersion"));
	errno = ENOENT;
	fprintf(stderr, "%s: %m\n", program_invocation_short_name);
	return 7;
}
