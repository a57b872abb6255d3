/* Stands in for the header that glibc's configure generates; nothing of it is used. */
