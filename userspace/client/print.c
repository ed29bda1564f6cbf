// SPDX-License-Identifier: MIT
#include "userspace/client/print.h"

#include <errno.h>
#include <inttypes.h>
#include <mosquitto.h>
#include <string.h>

#include "userspace/base/text.h"

#define SHORT_BYTES	 8
#define WIRE_HEAD_BYTES	 16
#define WIRE_BLOCK_BYTES (ENVELOPE_GRANT_BYTES + 12) /* grant id and the beginning of x(E') */
#define WIRE_TAIL_BYTES	 8

static void print_hex(struct bytes v, FILE *to)
{
	for (size_t i = 0; i < v.n; i++)
		fprintf(to, "%02x", v.p[i]);
}

static const char *proof_name(enum ssdtf_proof proof)
{
	switch (proof) {
	case SSDTF_PROOF_ABSENT:
		return "absent";
	case SSDTF_PROOF_UNCHECKED:
		return "unchecked";
	case SSDTF_PROOF_VERIFIED:
		return "verified";
	}
	return "?";
}

static void print_meta(const struct ssdtf_packet *packet, const struct ssdtf_event *e, FILE *to)
{
	char x[TEXT_HEX_SIZE(SHORT_BYTES) + 2], grant[TEXT_HEX_SIZE(ENVELOPE_GRANT_BYTES)];

	fprintf(to,
		"origin=%.*s counter=%" PRIu64 " time_ms=%" PRIu64 " key_id=%" PRIu32
		" level=%u grant=%s x=%s proof=%s qos=%u retain=%d\n",
		(int)e->origin.n, (const char *)e->origin.p, e->counter, e->time_ms,
		e->envelope.key_id, (unsigned)e->envelope.level, text_hex(e->envelope.grant, grant),
		text_short(e->envelope.x, SHORT_BYTES, x), proof_name(e->proof),
		(unsigned)packet->qos, packet->retain);
}

/* The beginning (the sender's), the converted block (this receiver's), the end (the signature's).
 */
static void print_wire(const struct ssdtf_packet *packet, FILE *to)
{
	struct bytes_reader r = bytes_reader_of(packet->payload);

	fprintf(to, "wire=");
	print_hex(bytes_read_view(&r, WIRE_HEAD_BYTES), to);
	(void)bytes_read_view(&r, ENVELOPE_FIXED_BYTES - WIRE_HEAD_BYTES); /* left out */
	fprintf(to, "..");
	print_hex(bytes_read_view(&r, WIRE_BLOCK_BYTES), to);
	/* An opened message is longer than all of this. */
	(void)bytes_read_view(&r, r.left > WIRE_TAIL_BYTES ? r.left - WIRE_TAIL_BYTES : 0);
	fprintf(to, "..");
	print_hex(bytes_read_rest(&r), to);
	fprintf(to, " bytes=%zu\n", packet->payload.n);
}

/* What a JSON string can hold and a reader wants as text: UTF-8, with tabs and newlines. Between
 * them the library judges, which takes controls for malformed and at most 64 KiB at a time. */
static bool is_text(struct bytes v)
{
	size_t begin = 0;

	for (size_t i = 0; i <= v.n; i++) {
		if (i < v.n && v.p[i] != '\n' && v.p[i] != '\r' && v.p[i] != '\t')
			continue;
		if (i > begin && (i - begin > UINT16_MAX ||
				  mosquitto_validate_utf8((const char *)v.p + begin,
							  (int)(i - begin)) != MOSQ_ERR_SUCCESS))
			return false;
		begin = i + 1;
	}
	return true;
}

/* A JSON string; v is UTF-8. */
static void json_string(struct bytes v, FILE *to)
{
	putc('"', to);
	for (size_t i = 0; i < v.n; i++) {
		if (v.p[i] == '"' || v.p[i] == '\\')
			fprintf(to, "\\%c", v.p[i]);
		else if (v.p[i] < 0x20 || v.p[i] == 0x7f)
			fprintf(to, "\\u%04x", v.p[i]);
		else
			putc(v.p[i], to);
	}
	putc('"', to);
}

static void json_hex(const char *name, struct bytes v, FILE *to)
{
	fprintf(to, ",\"%s\":\"", name);
	print_hex(v, to);
	putc('"', to);
}

static void print_json(bool wire, const struct ssdtf_packet *packet, const struct ssdtf_event *e,
		       FILE *to)
{
	fprintf(to, "{\"topic\":");
	json_string(packet->topic, to);
	fprintf(to, ",\"origin\":");
	json_string(e->origin, to);
	fprintf(to,
		",\"counter\":%" PRIu64 ",\"time_ms\":%" PRIu64 ",\"qos\":%u,\"retain\":%s"
		",\"key_id\":%" PRIu32 ",\"level\":%u",
		e->counter, e->time_ms, (unsigned)packet->qos, packet->retain ? "true" : "false",
		e->envelope.key_id, (unsigned)e->envelope.level);
	json_hex("grant", e->envelope.grant, to);
	json_hex("x", e->envelope.x, to);
	fprintf(to, ",\"id_replaced\":%s,\"proof\":\"%s\"", e->id_replaced ? "true" : "false",
		proof_name(e->proof));
	if (is_text(e->plain)) {
		fprintf(to, ",\"payload\":");
		json_string(e->plain, to);
	} else {
		json_hex("payload_hex", e->plain, to);
	}
	if (wire)
		json_hex("wire", packet->payload, to);
	fprintf(to, "}\n");
}

int print_message(const struct print_options *o, const struct ssdtf_packet *packet,
		  const struct ssdtf_event *event, FILE *to)
{
	if (o->json) {
		print_json(o->wire, packet, event, to);
	} else {
		if (o->meta)
			print_meta(packet, event, to);
		if (o->wire)
			print_wire(packet, to);
		if (o->topic) {
			fwrite(packet->topic.p, 1, packet->topic.n, to);
			putc(' ', to);
		}
		fwrite(event->plain.p, 1, event->plain.n, to);
		if (o->newline)
			putc('\n', to);
	}
	return fflush(to) || ferror(to) ? -(errno ? errno : EIO) : 0;
}

char *print_clean(struct bytes v, char *out, size_t room)
{
	size_t n = v.n < room - 1 ? v.n : room - 1;

	for (size_t i = 0; i < n; i++)
		out[i] = v.p[i] >= 0x20 && v.p[i] < 0x7f ? (char)v.p[i] : '?';
	out[n] = '\0';
	return out;
}
