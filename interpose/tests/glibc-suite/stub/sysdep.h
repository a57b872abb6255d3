/* Stands in for glibc's assembler and system call macros: the tests want the numbers. */
#include <sys/syscall.h>
