// Sleeps beside the benchmark; with an argument, after it has made itself a slot where the kernel has them, so that the kernel's switch is patched to publish.
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char made[40] = {0};
    (void)argv;
    if (argc > 1)
        syscall(1000, made, sizeof made, 0);
    for (;;)
        pause();
}
