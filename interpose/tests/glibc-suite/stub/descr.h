/* Stands in for glibc's thread descriptor, of which the tests only include the header. */
#include <pthreaddef.h>
