/* A given number of lock+unlock pairs by one thread, for counting instructions.

     pairs OPERATION KIND PROCESS COUNT

   OPERATION  lock, trylock, or none (the loop alone, to be subtracted)
   KIND       normal, recursive, errorcheck or adaptive
   PROCESS    single, or multi: a second thread exists and sleeps all the time
   COUNT      pairs */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int forever[2];
static int ready[2];

static void *
sleeper (void *unused)
{
  char byte = 0;
  if (write (ready[1], &byte, 1) != 1 || read (forever[0], &byte, 1) < 0)
    perror ("pairs: the second thread");
  return unused;
}

/* Returns once the thread runs, so that its start is in every run's count. */
static int
start_sleeper (void)
{
  char byte;
  pthread_t thread;
  return pipe (forever) == 0 && pipe (ready) == 0
         && pthread_create (&thread, NULL, sleeper, NULL) == 0
         && read (ready[0], &byte, 1) == 1;
}

static int
kind_of (const char *name)
{
  if (strcmp (name, "normal") == 0)
    return PTHREAD_MUTEX_NORMAL;
  if (strcmp (name, "recursive") == 0)
    return PTHREAD_MUTEX_RECURSIVE;
  if (strcmp (name, "errorcheck") == 0)
    return PTHREAD_MUTEX_ERRORCHECK;
  if (strcmp (name, "adaptive") == 0)
    return PTHREAD_MUTEX_ADAPTIVE_NP;
  fprintf (stderr, "pairs: no kind %s\n", name);
  exit (2);
}

int
main (int argc, char **argv)
{
  if (argc != 5)
    {
      fprintf (stderr, "usage: pairs OPERATION KIND PROCESS COUNT\n");
      return 2;
    }
  static pthread_mutex_t mutex;
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init (&attributes);
  pthread_mutexattr_settype (&attributes, kind_of (argv[2]));
  pthread_mutex_init (&mutex, &attributes);
  if (strcmp (argv[3], "multi") == 0 && !start_sleeper ())
    {
      fprintf (stderr, "pairs: cannot start a second thread\n");
      return 1;
    }
  unsigned long count = strtoul (argv[4], NULL, 10);
  int wrong = 0;
  if (strcmp (argv[1], "lock") == 0)
    for (unsigned long i = 0; i < count; ++i)
      {
        wrong |= pthread_mutex_lock (&mutex);
        wrong |= pthread_mutex_unlock (&mutex);
      }
  else if (strcmp (argv[1], "trylock") == 0)
    for (unsigned long i = 0; i < count; ++i)
      {
        wrong |= pthread_mutex_trylock (&mutex);
        wrong |= pthread_mutex_unlock (&mutex);
      }
  else
    for (unsigned long i = 0; i < count; ++i)
      {
        __asm__ volatile ("" : "+r" (wrong) : "r" (&mutex));
        __asm__ volatile ("" : "+r" (wrong) : "r" (&mutex));
      }
  if (wrong != 0)
    fprintf (stderr, "pairs: a call returned an error\n");
  /* The sleeper ends with the process. */
  return wrong != 0;
}
