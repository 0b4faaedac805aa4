/* SPDX-License-Identifier: MIT */
/* cli: asking the running weir by its control socket. */
#ifndef WEIR_CLI_ASK_H
#define WEIR_CLI_ASK_H

#include <jansson.h>
#include <stdbool.h>

/* Takes the order; socket NULL: the usual one. The answer, the caller's; NULL: there is none, and why was said. */
json_t *weir_ask(const char *socket, json_t *order);
/* Prints an answer and drops it: as JSON, as an error, as its one line, or by print. The exit status. */
int weir_print_answer(json_t *answer, bool json, void (*print)(const json_t *answer));
#endif
