/* A frame in a library that is closed later. */
void call_back(void (*function)(void *), void *argument);

void call_back(void (*function)(void *), void *argument)
{
	function(argument);
	__asm__ volatile("" ::: "memory");
}
