// SPDX-License-Identifier: MIT
/* ports in|out b|w|l PORT [VALUE]: one access to an I/O port, as any process of root's can make it. Prints what it read. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>

int main(int count, char **argument)
{
	bool out = count == 5 && !strcmp(argument[1], "out"), in = count == 4 && !strcmp(argument[1], "in");
	unsigned short port;
	unsigned int value;

	if ((!out && !in) || strlen(argument[2]) != 1 || !strchr("bwl", argument[2][0])) {
		fprintf(stderr, "usage: ports in|out b|w|l PORT [VALUE]\n");
		return 2;
	}
	if (iopl(3)) {
		perror("ports: iopl");
		return 1;
	}
	port = strtoul(argument[3], NULL, 0);
	value = out ? strtoul(argument[4], NULL, 0) : 0;
	switch (argument[2][0] + (out ? 'A' - 'a' : 0)) {
	case 'B':
		outb(value, port);
		break;
	case 'W':
		outw(value, port);
		break;
	case 'L':
		outl(value, port);
		break;
	case 'b':
		value = inb(port);
		break;
	case 'w':
		value = inw(port);
		break;
	default:
		value = inl(port);
	}
	if (in)
		printf("0x%x\n", value);
	return 0;
}
