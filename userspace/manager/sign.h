/* SPDX-License-Identifier: MIT */
/* Statements signed in the manager's token (PROTOCOL 8). */
#ifndef SSDTF_MANAGER_SIGN_H
#define SSDTF_MANAGER_SIGN_H

#include "userspace/bundle/statement.h"
#include "userspace/manager/manager.h"

/* The whole statement into out, which has room for STATEMENT_BYTES(s->body.n). */
int sign_statement(struct manager *m, const struct statement *s, uint8_t *out, size_t room,
		   size_t *ret_n) must_check;

#endif
