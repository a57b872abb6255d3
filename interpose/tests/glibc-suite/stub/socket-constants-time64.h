/* Stands in for a generated header of 32-bit time constants; empty on 64-bit. */
