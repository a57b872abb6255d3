/* A frame in a library that is closed later; ROOM: bytes of it. */
#ifndef ROOM
#define ROOM 500
#endif

void call_back(void (*function)(void *), void *argument);

void call_back(void (*function)(void *), void *argument)
{
	volatile char room[ROOM];
	room[0] = room[sizeof room - 1] = 1;
	function(argument);
	room[1] = 2;
}
