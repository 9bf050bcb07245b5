// SPDX-License-Identifier: MIT
/* hpsctl completion: what bash needs to complete hpsctl's words, from the table of commands. */
#include <stdio.h>
#include <string.h>

#include "hpsctl.h"

static error_t parse(int key, char *text, struct argp_state *state)
{
	return refuse_arguments(key, text, state);
}

static int run_completion(const struct command *command, int argc, char **argv)
{
	parse_command(command, argc, argv, NULL);
	puts("# bash completion for hpsctl, as `hpsctl completion' prints it.\n"
	     "_hpsctl()\n"
	     "{\n"
	     "\tlocal words='--help --usage --version'\n"
	     "\n"
	     "\tcase \"$COMP_CWORD ${COMP_WORDS[1]}\" in");
	fputs("\t'1 '*) words+='", stdout);
	for (size_t i = 0; i < command_count; i++)
		printf(" %.*s", (int)strcspn(commands[i]->name, " "), commands[i]->name);
	puts("' ;;");
	for (size_t i = 0; i < command_count; i++) {
		const char *name = commands[i]->name;

		printf("\t*' %.*s') words='--help --usage%s", (int)strcspn(name, " "), name, name + strcspn(name, " "));
		for (const struct argp_option *option = commands[i]->argp.options; option && option->name; option++)
			printf(" --%s%s", option->name,
			       option->arg && !(option->flags & OPTION_ARG_OPTIONAL) ? "=" : "");
		puts("' ;;");
	}
	puts("\tesac\n"
	     "\t# What is no option, or is an option's value, is a file.\n"
	     "\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\")\n"
	     "\t[[ ${COMPREPLY[*]} != *= ]] || compopt -o nospace\n"
	     "}\n"
	     "complete -o default -F _hpsctl hpsctl");
	return output_is_written() ? EXIT_OK : EXIT_NOT_RUNNING;
}

const struct command completion_command = {
	.name = "completion",
	.summary = "the completion script for bash",
	.argp = { .parser = parse,
		  .doc = "Prints a script that has bash complete the words of hpsctl's command line: source <(hpsctl "
			 "completion).\vExit status: 0 success, 1 it could not be written, 2 wrong usage." },
	.usage_status = EXIT_USAGE,
	.run = run_completion,
};
