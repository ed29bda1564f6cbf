// SPDX-License-Identifier: MIT
#include "hsm/token.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define CRYPTOKI_GNU
#include <p11-kit/pkcs11.h>

#include "hsm/override.h"
#include "hsm/token_impl.h"

#define SLOTS_MAX	   64
#define LOCK_WAIT_MS_MAX   1000
#define LOCK_STEP_MS	   5
#define HANDLE_LOSSES_MAX  2
#define PIN_REFUSED_PREFIX "PIN refused: "

/* What an error asks for, from the least to the most. */
enum rung {
	RUNG_NONE,    /* the request was at fault */
	RUNG_HANDLES, /* handles are void: find and unwrap again */
	RUNG_LOGIN,
	RUNG_SESSION,
	RUNG_REINIT, /* finalise, initialise, find the slot, open, log in */
	RUNG_STOP,   /* the PIN is wrong: a person must look */
};

struct ckr {
	ck_rv_t rv;
	const char *name;
	int err;
	enum rung rung;
};

/* clang-format off */
#define CKR(name, err, rung) { CKR_##name, "CKR_" #name, err, RUNG_##rung }
/* clang-format on */

static const struct ckr ckrs[] = {
	CKR(OK, 0, NONE),
	CKR(HOST_MEMORY, -EIO, REINIT),
	CKR(SLOT_ID_INVALID, -ENODEV, REINIT),
	CKR(GENERAL_ERROR, -EIO, REINIT),
	CKR(FUNCTION_FAILED, -EIO, REINIT),
	CKR(ARGUMENTS_BAD, -EINVAL, NONE),
	CKR(ACTION_PROHIBITED, -EINVAL, NONE),
	CKR(ATTRIBUTE_READ_ONLY, -EINVAL, NONE),
	CKR(ATTRIBUTE_SENSITIVE, -EINVAL, NONE),
	CKR(ATTRIBUTE_TYPE_INVALID, -EINVAL, NONE),
	CKR(ATTRIBUTE_VALUE_INVALID, -EINVAL, NONE),
	CKR(DATA_INVALID, -EINVAL, NONE),
	CKR(DATA_LEN_RANGE, -EINVAL, NONE),
	CKR(DEVICE_ERROR, -ENODEV, REINIT),
	CKR(DEVICE_MEMORY, -EIO, REINIT),
	CKR(DEVICE_REMOVED, -ENODEV, REINIT),
	CKR(ENCRYPTED_DATA_INVALID, -EBADMSG, NONE),
	CKR(ENCRYPTED_DATA_LEN_RANGE, -EBADMSG, NONE),
	CKR(FUNCTION_NOT_SUPPORTED, -EINVAL, NONE),
	CKR(KEY_HANDLE_INVALID, -ENOKEY, HANDLES),
	CKR(KEY_SIZE_RANGE, -EINVAL, NONE),
	CKR(KEY_TYPE_INCONSISTENT, -EINVAL, NONE),
	CKR(KEY_FUNCTION_NOT_PERMITTED, -EINVAL, NONE),
	CKR(KEY_UNEXTRACTABLE, -EINVAL, NONE),
	CKR(MECHANISM_INVALID, -EINVAL, NONE),
	CKR(MECHANISM_PARAM_INVALID, -EINVAL, NONE),
	CKR(OBJECT_HANDLE_INVALID, -ENOKEY, HANDLES),
	CKR(OPERATION_ACTIVE, -EIO, SESSION),
	CKR(OPERATION_NOT_INITIALIZED, -EIO, SESSION),
	CKR(PIN_INCORRECT, -EACCES, STOP),
	CKR(PIN_INVALID, -EACCES, STOP),
	CKR(PIN_LEN_RANGE, -EACCES, STOP),
	CKR(PIN_EXPIRED, -EACCES, STOP),
	CKR(PIN_LOCKED, -EACCES, STOP),
	CKR(SESSION_CLOSED, -EIO, SESSION),
	CKR(SESSION_COUNT, -EIO, REINIT),
	CKR(SESSION_HANDLE_INVALID, -EIO, SESSION),
	CKR(TEMPLATE_INCOMPLETE, -EINVAL, NONE),
	CKR(TEMPLATE_INCONSISTENT, -EINVAL, NONE),
	CKR(TOKEN_NOT_PRESENT, -ENODEV, REINIT),
	CKR(TOKEN_NOT_RECOGNIZED, -ENODEV, REINIT),
	CKR(TOKEN_WRITE_PROTECTED, -EINVAL, NONE),
	CKR(UNWRAPPING_KEY_HANDLE_INVALID, -ENOKEY, HANDLES),
	CKR(UNWRAPPING_KEY_SIZE_RANGE, -EBADMSG, NONE),
	CKR(USER_NOT_LOGGED_IN, -EIO, LOGIN),
	CKR(USER_PIN_NOT_INITIALIZED, -EACCES, STOP),
	CKR(USER_TYPE_INVALID, -EINVAL, NONE),
	CKR(WRAPPED_KEY_INVALID, -EBADMSG, NONE),
	CKR(WRAPPED_KEY_LEN_RANGE, -EBADMSG, NONE),
	CKR(CRYPTOKI_NOT_INITIALIZED, -ENODEV, REINIT),
	CKR(CRYPTOKI_ALREADY_INITIALIZED, -EBUSY, REINIT),
};

static char open_words[TOKEN_WORDS_BYTES];

/* --- errors --- */

static const struct ckr *ckr_of(ck_rv_t rv)
{
	for (size_t i = 0; i < ARRAY_SIZE(ckrs); i++)
		if (ckrs[i].rv == rv)
			return &ckrs[i];
	return NULL;
}

int token_called(struct token *t, const char *call, ck_rv_t rv)
{
	const struct ckr *e = ckr_of(rv);

	if (rv == CKR_OK)
		return 0;
	t->rv = rv;
	if (e)
		snprintf(t->words, sizeof(t->words), "%s: %s", call, e->name);
	else
		snprintf(t->words, sizeof(t->words), "%s: CKR 0x%lx", call, rv);
	return e ? e->err : -EIO;
}

void token_say(struct token *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->words, sizeof(t->words), fmt, ap);
	va_end(ap);
}

int token_odd(struct token *t, const char *call, unsigned long n)
{
	t->rv = CKR_GENERAL_ERROR;
	token_say(t, "%s: CKR_OK, but %lu bytes", call, n);
	return -EIO;
}

const char *token_error(const struct token *t)
{
	return t->words;
}

const char *token_open_error(void)
{
	return open_words;
}

/* --- one process at a time --- */

/* -1: there is no lock file. A holder that hangs must not hang us. */
static int lock(struct token *t, int *ret_fd)
{
	const struct timespec step = { .tv_nsec = LOCK_STEP_MS * 1000000L };
	int fd;

	*ret_fd = -1;
	if (!t->lock_file)
		return 0;
	fd = open(t->lock_file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		token_say(t, "lock file %s: %s", t->lock_file, strerror(errno));
		return -ENODEV;
	}
	for (unsigned ms = 0; flock(fd, LOCK_EX | LOCK_NB); ms += LOCK_STEP_MS) {
		if (ms >= LOCK_WAIT_MS_MAX) {
			token_say(t, "lock file %s: held by another for %u ms", t->lock_file, ms);
			(void)close(fd); /* nothing was written */
			return -ENODEV;
		}
		(void)nanosleep(&step, NULL); /* cut short: asked again sooner */
	}
	*ret_fd = fd;
	return 0;
}

static void unlock(int fd)
{
	if (fd >= 0)
		(void)close(fd); /* which lets go of the lock; the note in it is a courtesy */
}

/* Was this very PIN file refused before, by whichever process? */
static bool refused_before(const struct token *t, int lock_fd)
{
	char note[sizeof(PIN_REFUSED_PREFIX) + PIN_STAMP_BYTES] = { 0 };
	const size_t prefix = sizeof(PIN_REFUSED_PREFIX) - 1;

	if (lock_fd < 0 || pread(lock_fd, note, sizeof(note) - 1, 0) <= 0)
		return false;
	return !strncmp(note, PIN_REFUSED_PREFIX, prefix) && !strcmp(note + prefix, t->pin.stamp);
}

static void note_refused(const struct token *t, int lock_fd)
{
	char note[sizeof(PIN_REFUSED_PREFIX) + PIN_STAMP_BYTES];
	int n = snprintf(note, sizeof(note), PIN_REFUSED_PREFIX "%s", t->pin.stamp);

	/* Where it cannot be written, each process finds out for itself. */
	if (lock_fd >= 0 && !ftruncate(lock_fd, 0))
		(void)!pwrite(lock_fd, note, (size_t)n, 0);
}

/* --- module, slot, session, login --- */

static void drop_found(struct token *t)
{
	t->n_found = 0;
}

static int find_slot(struct token *t, ck_slot_id_t *ret_slot)
{
	ck_slot_id_t slots[SLOTS_MAX];
	unsigned long n = ARRAY_SIZE(slots);
	char padded[TOKEN_LABEL_BYTES_MAX];
	unsigned matches = 0;
	int rc = CALL(t, C_GetSlotList, 1, slots, &n);

	if (rc)
		return rc;
	memset(padded, ' ', sizeof(padded));
	memcpy(padded, t->label, strlen(t->label));
	for (unsigned long i = 0; i < n; i++) {
		struct ck_token_info info;

		/* One slot's trouble is not another's. */
		if (t->f->C_GetTokenInfo(slots[i], &info) != CKR_OK)
			continue;
		if (!(info.flags & CKF_TOKEN_INITIALIZED) ||
		    memcmp(info.label, padded, sizeof(padded)) != 0)
			continue;
		*ret_slot = slots[i];
		matches++;
	}
	if (matches == 1)
		return 0;
	t->rv = CKR_TOKEN_NOT_PRESENT;
	if (matches)
		token_say(t, "%u tokens are labelled \"%s\"", matches, t->label);
	else
		token_say(t, "no token labelled \"%s\"", t->label);
	return matches ? -EINVAL : -ENODEV;
}

static int login(struct token *t, int lock_fd)
{
	bool dropped;
	ck_rv_t rv;

	if (refused_before(t, lock_fd)) {
		t->rv = CKR_PIN_INCORRECT;
		token_say(t, "this PIN was refused before: not tried again until its file is new");
		return -EKEYREJECTED;
	}
	dropped = override_drop();
	rv = t->f->C_Login(t->session, CKU_USER, t->pin.text, t->pin.n);
	override_restore(dropped);
	if (rv == CKR_USER_ALREADY_LOGGED_IN)
		return 0;
	if (token_called(t, "C_Login", rv) == -EACCES)
		note_refused(t, lock_fd);
	return token_called(t, "C_Login", rv);
}

static int open_session(struct token *t, int lock_fd)
{
	/* Read only: what hsmd makes are session objects. Key generation opens its own. */
	int rc = CALL(t, C_OpenSession, t->slot, CKF_SERIAL_SESSION, NULL, NULL, &t->session);

	if (rc)
		return rc;
	return login(t, lock_fd);
}

/* The highest rung, and the first start. */
static int reinit_locked(struct token *t, int lock_fd)
{
	struct ck_c_initialize_args args = { .flags = CKF_OS_LOCKING_OK };
	int rc;

	if (t->initialised)
		(void)t->f->C_Finalize(NULL); /* it may be broken: that is why we are here */
	t->initialised = false;
	rc = CALL(t, C_Initialize, &args);
	if (rc)
		return rc;
	t->initialised = true;
	rc = find_slot(t, &t->slot);
	if (rc)
		return rc;
	return open_session(t, lock_fd);
}

static int reinit(struct token *t)
{
	int lock_fd, rc = lock(t, &lock_fd);

	if (rc)
		return rc;
	drop_found(t);
	rc = reinit_locked(t, lock_fd);
	t->usable = !rc;
	unlock(lock_fd);
	return rc;
}

static int relogin(struct token *t)
{
	int lock_fd, rc = lock(t, &lock_fd);

	if (rc)
		return rc;
	drop_found(t);
	rc = login(t, lock_fd);
	unlock(lock_fd);
	return rc;
}

static int reopen(struct token *t)
{
	int lock_fd, rc = lock(t, &lock_fd);

	if (rc)
		return rc;
	drop_found(t);
	(void)t->f->C_CloseSession(t->session); /* most likely gone already */
	rc = open_session(t, lock_fd);
	unlock(lock_fd);
	return rc;
}

static int load_module(const char *path, struct token *t)
{
	ck_rv_t (*get_list)(struct ck_function_list * *list);
	/*
	 * Never unloaded again: modules leave exit handlers and thread keys behind, and a second
	 * load of a loaded module costs nothing.
	 */
	void *dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	void *symbol = dl ? dlsym(dl, "C_GetFunctionList") : NULL;

	if (!symbol) {
		token_say(t, "%s", dlerror());
		return -ENODEV;
	}
	memcpy(&get_list, &symbol, sizeof(get_list)); /* ISO C has no cast from data to function */
	return token_called(t, "C_GetFunctionList", get_list(&t->f));
}

static void token_free(struct token *t)
{
	pin_deinit(&t->pin);
	free(t->label);
	free(t->lock_file);
	free(t);
}

static int configure(struct token *t, const struct token_config *c)
{
	const char *why;
	int rc;

	if (!*c->label || strlen(c->label) > TOKEN_LABEL_BYTES_MAX) {
		token_say(t, "a token label has 1 to %u bytes", TOKEN_LABEL_BYTES_MAX);
		return -EINVAL;
	}
	t->label = strdup(c->label);
	t->lock_file = c->lock_file ? strdup(c->lock_file) : NULL;
	if (!t->label || (c->lock_file && !t->lock_file)) {
		token_say(t, "no memory");
		return -ENOMEM;
	}
	rc = pin_read(c->pin_file, c->pin_credential, &t->pin, &why);
	if (rc)
		token_say(t, "PIN file %s: %s", c->pin_file, why);
	return rc;
}

int token_open(const struct token_config *c, struct token **ret_t)
{
	struct token *t = calloc(1, sizeof(*t));
	int rc;

	if (!t) {
		snprintf(open_words, sizeof(open_words), "no memory");
		return -ENOMEM;
	}
	rc = configure(t, c);
	if (!rc)
		rc = load_module(c->module, t);
	if (!rc)
		rc = reinit(t);
	if (rc) {
		memcpy(open_words, t->words, sizeof(open_words));
		token_close(t);
		return rc;
	}
	*ret_t = t;
	return 0;
}

void token_close(struct token *t)
{
	if (!t)
		return;
	if (t->initialised)
		(void)t->f->C_Finalize(NULL); /* nothing of ours depends on its answer */
	token_free(t);
}

/* --- recovery --- */

bool token_logged_in(struct token *t)
{
	struct ck_session_info session;

	return t->f->C_GetSessionInfo(t->session, &session) == CKR_OK &&
	       (session.state == CKS_RO_USER_FUNCTIONS || session.state == CKS_RW_USER_FUNCTIONS);
}

static bool can_be_read(struct token *t, ck_object_handle_t key)
{
	ck_key_type_t type;
	struct ck_attribute a = ATTR(CKA_KEY_TYPE, type);

	return t->f->C_GetAttributeValue(t->session, key, &a, 1) == CKR_OK;
}

/* SoftHSM does not answer C_GetTokenInfo where token.object could not be written at login
 * (hsm/override.h); its objects it shows as ever. */
bool token_healthy(struct token *t, ck_object_handle_t key)
{
	struct ck_token_info token;

	if (!token_logged_in(t))
		return false;
	if (key != CK_INVALID_HANDLE)
		return can_be_read(t, key);
	if (t->f->C_GetTokenInfo(t->slot, &token) == CKR_OK)
		return true;
	for (unsigned i = 0; i < t->n_found; i++)
		if (can_be_read(t, t->found[i].handle))
			return true;
	return false;
}

/*
 * A handle that is void once was lost with a login or another process; twice in a row, or with a
 * token that does not answer, the module has lost the token's files and finds them again only after
 * C_Finalize.
 */
static enum rung rung_for_handles(struct token *t)
{
	struct ck_session_info session;

	if (t->f->C_GetSessionInfo(t->session, &session) != CKR_OK)
		return RUNG_SESSION;
	if (session.state == CKS_RO_PUBLIC_SESSION || session.state == CKS_RW_PUBLIC_SESSION)
		return RUNG_LOGIN;
	if (++t->handle_losses >= HANDLE_LOSSES_MAX || !token_healthy(t, CK_INVALID_HANDLE))
		return RUNG_REINIT;
	return RUNG_HANDLES;
}

static enum rung rung_for(struct token *t)
{
	const struct ckr *e = ckr_of(t->rv);
	enum rung rung = e ? e->rung : RUNG_REINIT;

	if (rung == RUNG_STOP)
		return rung;
	if (!t->usable)
		return RUNG_REINIT;
	return rung == RUNG_HANDLES ? rung_for_handles(t) : rung;
}

static bool is_final(int rc)
{
	return rc == -EACCES || rc == -EKEYREJECTED;
}

int token_recover(struct token *t, bool *ret_handles_lost)
{
	enum rung rung = rung_for(t);
	int rc = 0;

	*ret_handles_lost = rung != RUNG_NONE;
	switch (rung) {
	case RUNG_NONE:
		return 0;
	case RUNG_STOP:
		return -EACCES;
	case RUNG_HANDLES:
		drop_found(t);
		return 0;
	case RUNG_LOGIN:
		rc = relogin(t);
		break;
	case RUNG_SESSION:
		rc = reopen(t);
		break;
	case RUNG_REINIT:
		return token_recycle(t);
	}
	return rc && !is_final(rc) ? token_recycle(t) : rc;
}

int token_recycle(struct token *t)
{
	int rc = reinit(t);

	if (!rc)
		t->handle_losses = 0;
	return rc && !is_final(rc) ? -ENODEV : rc;
}
