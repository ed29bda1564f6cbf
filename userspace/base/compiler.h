/* SPDX-License-Identifier: MIT */
/*
 * What the compiler is asked to check for us, and the one way to say "this is our own bug".
 */
#ifndef SSDTF_BASE_COMPILER_H
#define SSDTF_BASE_COMPILER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define must_check	    __attribute__((warn_unused_result))
#define format_printf(a, b) __attribute__((format(printf, a, b)))
#define noreturn_fn	    __attribute__((noreturn))
#define cleanup(fn)	    __attribute__((cleanup(fn)))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* A condition that only a bug of ours can make true: never a peer's bytes. Always compiled in. */
#define BUG_ON(cond)                                                                   \
	do {                                                                           \
		if (__builtin_expect(!!(cond), 0)) {                                   \
			fprintf(stderr, "BUG %s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                       \
		}                                                                      \
	} while (0)

#endif
