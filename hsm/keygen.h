/* SPDX-License-Identifier: MIT */
/*
 * ssdtf-hsmd keygen: a gateway's keys, made in its token, and their public halves in a file for the
 * manager; and how its signing and its unwrapping key are replaced:
 *
 *   keygen --next      makes the key that will follow. hsmd may run, and uses it from SIGHUP on
 *   (the manager puts it into the gateway's bundle: ssdtf-admin rotate gateway)
 *   keygen --promote   destroys the old key, and the next one is the current one
 *
 * Each may be repeated, and does then what is left to do. What a keygen that was killed leaves is a
 * token that works, with the old key or with the new one (hsm/token.h, token_generations()).
 */
#ifndef SSDTF_HSM_KEYGEN_H
#define SSDTF_HSM_KEYGEN_H

#include "hsm/token.h"

enum keygen_role { KEYGEN_SIGNING, KEYGEN_UNWRAP, KEYGEN_ROLES };

struct keygen_config {
	struct token_config token;
	/*
	 * Gets three PEM PUBLIC KEY blocks, whole or not at all: the broker's signing key (EC), the
	 * unwrapping key (RSA) and the bundle key (EC); of the roles chosen by keygen_next() the
	 * next ones. The id key is a secret and has none.
	 */
	const char *public_file; /* NULL: no file; keygen_promote() alone */
	const char *socket_dir;	 /* keygen_promote(): of the hsmd that must not run meanwhile */
	bool roles[KEYGEN_ROLES];
	bool dry_run; /* says on stdout what would change, a line each, and changes nothing */
};

/*
 * All return a sysexits.h code, with one line said where that is not 0. A key that is there is
 * tried first: EX_PROTOCOL where the token does not keep the unwrapping key's promise.
 */
/* Makes what is missing of the current keys. */
int keygen_run(const struct keygen_config *c) must_check;
/* Makes the next keys of these roles. EX_DATAERR: there is no current one. */
int keygen_next(const struct keygen_config *c) must_check;
/* EX_DATAERR: there is no next key, and nothing to be destroyed. EX_TEMPFAIL: an hsmd runs there.
 */
int keygen_promote(const struct keygen_config *c) must_check;

#endif
