/* SPDX-License-Identifier: Apache-2.0 */
/* UTS 46 and RFC 5893 over names that are ASCII already; Punycode is RFC 3492. The tables are libunistring's (Unicode
 * 14): a letter that Unicode has taken in since is not known and refused. */
#include "base/idna.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/gotext.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>

enum {
	BASE = 36,
	TMIN = 1,
	TMAX = 26,
	SKEW = 38,
	DAMP = 700,
	FIRST_BIAS = 72,
	FIRST_RUNE = 128,
	RUNES_MAX = 1024,
	LABEL_MAX = 63,
	NAME_MAX_LEN = 253,
	ZWNJ = 0x200c,
	ZWJ = 0x200d,
};

struct label {
	const char *text; /* in the name */
	size_t len;
	uint32_t *runes; /* of an "xn--" label, allocated; NULL: a plain one */
	size_t n;
};

/* --- Punycode
 * ----------------------------------------------------------------------------------------------------------- */

static int64_t adapt(int64_t delta, int64_t points, bool first)
{
	int64_t k = 0;

	delta = first ? delta / DAMP : delta / 2;
	for (delta += delta / points; delta > (BASE - TMIN) * TMAX / 2; k += BASE)
		delta /= BASE - TMIN;
	return k + (BASE - TMIN + 1) * delta / (delta + SKEW);
}

static int64_t threshold(int64_t k, int64_t bias)
{
	return k <= bias ? TMIN : k >= bias + TMAX ? TMAX : k - bias;
}

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0' + 26;
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a';
	return -1;
}

/* One number of variable length at *at, added to *i; -1 if there is none or it is too large. */
static int decode_number(const char *text, size_t len, size_t *at, int64_t *i, int64_t bias)
{
	int64_t weight = 1;

	for (int64_t k = BASE;; k += BASE) {
		int64_t t = threshold(k, bias);
		int digit;

		if (*at == len || (digit = digit_of(text[*at])) < 0)
			return -1;
		++*at;
		*i += digit * weight;
		if (*i > INT32_MAX)
			return -1;
		if (digit < t)
			return 0;
		weight *= BASE - t;
		if (weight > INT32_MAX)
			return -1;
	}
}

ptrdiff_t punycode_decode(const char *text, size_t len, uint32_t *runes)
{
	int64_t i = 0, rune = FIRST_RUNE, bias = FIRST_BIAS;
	size_t n = 0, at = len;

	while (at > 0 && text[at - 1] != '-')
		at--; /* behind the last hyphen */
	if (at == 1)
		return -1;
	while (n + 1 < at) {
		runes[n] = (unsigned char)text[n];
		n++;
	}
	while (at < len) {
		int64_t before = i;

		if (decode_number(text, len, &at, &i, bias) < 0 || n >= RUNES_MAX)
			return -1;
		bias = adapt(i - before, (int64_t)n + 1, before == 0);
		rune += i / ((int64_t)n + 1);
		i %= (int64_t)n + 1;
		if (rune > 0x10ffff)
			return -1;
		memmove(runes + i + 1, runes + i, (n - (size_t)i) * sizeof *runes);
		/* What is no character becomes the one for that, as in Go's strings. */
		runes[i++] = rune >= 0xd800 && rune <= 0xdfff ? 0xfffd : (uint32_t)rune;
		n++;
	}
	return (ptrdiff_t)n;
}

static void put_number(struct buf *out, int64_t value, int64_t bias)
{
	for (int64_t k = BASE;; k += BASE) {
		int64_t t = threshold(k, bias), digit = value < t ? value : t + (value - t) % (BASE - t);

		buf_put(out, (uint8_t)(digit < 26 ? 'a' + digit : '0' + digit - 26));
		if (value < t)
			return;
		value = (value - t) / (BASE - t);
	}
}

/* `runes` is at most RUNES_MAX long, so nothing overflows. */
static void punycode_encode(struct buf *out, const uint32_t *runes, size_t n)
{
	int64_t delta = 0, bias = FIRST_BIAS, done = 0, basic;
	uint32_t rune = FIRST_RUNE;

	for (size_t i = 0; i < n; i++) {
		if (runes[i] < FIRST_RUNE) {
			buf_put(out, (uint8_t)runes[i]);
			done++;
		}
	}
	basic = done;
	if (basic > 0)
		buf_put(out, '-');
	for (; done < (int64_t)n; rune++) {
		uint32_t next = UINT32_MAX;

		for (size_t i = 0; i < n; i++)
			if (runes[i] >= rune && runes[i] < next)
				next = runes[i];
		delta += (int64_t)(next - rune) * (done + 1);
		rune = next;
		for (size_t i = 0; i < n; i++) {
			if (runes[i] < rune)
				delta++;
			if (runes[i] != rune)
				continue;
			put_number(out, delta, bias);
			bias = adapt(delta, done + 1, done == basic);
			delta = 0;
			done++;
		}
		delta++;
	}
}

/* --- what may stand in a name
 * ------------------------------------------------------------------------------------------- */

/* UTS 46: a character is valid if case folding and compatibility normalization leave it as it is, with the exceptions
 * below. */
static bool rune_valid(uint32_t rune)
{
	uint32_t folded[32], *result;
	size_t len = sizeof folded / sizeof folded[0];
	bool same;

	if (rune < FIRST_RUNE)
		return (rune >= 'a' && rune <= 'z') || (rune >= '0' && rune <= '9') || rune == '-';
	switch (rune) {
	case 0xdf:  /* sharp s */
	case 0x3c2: /* final sigma */
	case ZWNJ:
	case ZWJ:
		return true;
	case 0x1806: /* ignored */
	case 0x3002: /* a full stop */
	case 0x2260: /* these three hold a '=', '<', '>' */
	case 0x226e:
	case 0x226f:
	case 0xfffc: /* stand for what is missing */
	case 0xfffd:
		return false;
	default:
		break;
	}
	if (rune >= 0x2ff0 && rune <= 0x2fff) /* ideographic descriptions */
		return false;
	if (uc_is_general_category_withtable(rune, UC_CATEGORY_MASK_C | UC_CATEGORY_MASK_Z) ||
	    uc_is_property_default_ignorable_code_point(rune))
		return false;
	result = u32_casefold(&rune, 1, NULL, UNINORM_NFKC, folded, &len);
	same = result != NULL && len == 1 && result[0] == rune;
	if (result != folded)
		free(result);
	return same;
}

static bool is_composed(const uint32_t *runes, size_t n)
{
	size_t len = 0;
	uint32_t *normal = u32_normalize(UNINORM_NFC, runes, n, NULL, &len);
	bool same = normal != NULL && len == n && memcmp(normal, runes, n * sizeof *runes) == 0;

	free(normal);
	return same;
}

static bool is_virama(uint32_t rune)
{
	return uc_combining_class(rune) == UC_CCC_VR;
}

/* RFC 5892 A.1: left-joining, transparents, here, transparents, right-joining. Go asks less of what follows: not
 * left-joining. */
static bool joins(const uint32_t *runes, size_t n, size_t at)
{
	size_t left = at, right = at + 1;
	int before;

	while (left > 0 && uc_joining_type(runes[left - 1]) == UC_JOINING_TYPE_T)
		left--;
	while (right < n && uc_joining_type(runes[right]) == UC_JOINING_TYPE_T)
		right++;
	if (left == 0 || right == n || runes[right] == ZWNJ || runes[right] == ZWJ)
		return false;
	before = uc_joining_type(runes[left - 1]);
	return (before == UC_JOINING_TYPE_L || before == UC_JOINING_TYPE_D) &&
	       uc_joining_type(runes[right]) != UC_JOINING_TYPE_L;
}

/* RFC 5892 A.1 and A.2. */
static bool joiners_valid(const uint32_t *runes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (runes[i] != ZWNJ && runes[i] != ZWJ)
			continue;
		if (i > 0 && is_virama(runes[i - 1]))
			continue;
		if (runes[i] == ZWJ || !joins(runes, n, i))
			return false;
	}
	return true;
}

static bool runes_valid(const uint32_t *runes, size_t n)
{
	if (n == 0 || !is_composed(runes, n))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!rune_valid(runes[i]))
			return false;
	return !uc_is_general_category_withtable(runes[0], UC_CATEGORY_MASK_M) && joiners_valid(runes, n);
}

/* `text` has `len` bytes; for a decoded label its UTF-8. */
static bool hyphens_valid(const char *text, size_t len)
{
	if (len > 4 && text[2] == '-' && text[3] == '-')
		return false;
	return text[0] != '-' && text[len - 1] != '-';
}

/* --- RFC 5893: names with letters that run from right to left
 * ------------------------------------------------------------ */

enum { RTL = 1 << UC_BIDI_R | 1 << UC_BIDI_AL, NUMBERS = 1 << UC_BIDI_EN | 1 << UC_BIDI_AN };

static unsigned bidi_class(const struct label *label, size_t i)
{
	return 1U << uc_bidi_class(label->runes != NULL ? label->runes[i] : (unsigned char)label->text[i]);
}

static bool bidi_valid(const struct label *label)
{
	const unsigned neutral = 1 << UC_BIDI_ES | 1 << UC_BIDI_CS | 1 << UC_BIDI_ET | 1 << UC_BIDI_ON |
				 1 << UC_BIDI_BN | 1 << UC_BIDI_NSM;
	size_t n = label->runes != NULL ? label->n : label->len;
	unsigned allowed, last, seen = 0, end = 0;

	if (n == 0)
		return true;
	if ((bidi_class(label, 0) & RTL) != 0) {
		last = RTL | NUMBERS;
		allowed = last | neutral;
	} else if (bidi_class(label, 0) == 1 << UC_BIDI_L) {
		last = 1 << UC_BIDI_L | 1 << UC_BIDI_EN;
		allowed = last | neutral;
	} else {
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		unsigned class = bidi_class(label, i);

		seen |= class;
		if (class != 1 << UC_BIDI_NSM)
			end = class; /* marks belong to what they stand on */
	}
	return (seen & ~allowed) == 0 && (end & last) != 0 && (seen & NUMBERS) != NUMBERS;
}

/* --- the name
 * ----------------------------------------------------------------------------------------------------------- */

static enum code invalid_label(const char *text, size_t len, struct err *err)
{
	OWN_BUF quoted = { 0 };

	go_quote_bytes(&quoted, text, len);
	return err_set(err, CODE_INVALID_ARGUMENT, "idna error\nidna: invalid label %s", buf_text(&quoted));
}

static enum code check_xn_label(struct label *label, bool *bidi, struct err *err)
{
	const char *encoded = label->text + 4;
	size_t len = label->len - 4;
	OWN_BUF text = { 0 };
	ptrdiff_t n;

	label->runes = xmalloc((len + 1) * sizeof *label->runes);
	n = punycode_decode(encoded, len, label->runes);
	if (n < 0)
		return invalid_label(encoded, len, err);
	label->n = (size_t)n;
	for (size_t i = 0; i < label->n; i++) {
		go_put_rune(&text, label->runes[i]);
		if ((bidi_class(label, i) & (RTL | 1 << UC_BIDI_AN)) != 0)
			*bidi = true;
	}
	if (!runes_valid(label->runes, label->n) || !hyphens_valid((const char *)text.data, text.len))
		return invalid_label((const char *)text.data, text.len, err);
	return CODE_OK;
}

static enum code check_label(const char *domain, struct label *label, bool *bidi, struct err *err)
{
	if (label->len == 0)
		return invalid_label(domain, strlen(domain), err);
	if (label->len >= 4 && memcmp(label->text, "xn--", 4) == 0)
		return check_xn_label(label, bidi, err);
	if (!hyphens_valid(label->text, label->len))
		return invalid_label(label->text, label->len, err);
	return CODE_OK;
}

/* The name as its decoded labels encode: in `checked`. */
static enum code check_encoded(const char *domain, const struct label *labels, size_t n, struct err *err)
{
	OWN_BUF checked = { 0 }, from = { 0 }, to = { 0 };

	for (size_t i = 0; i < n; i++) {
		const struct label *label = &labels[i];
		size_t at;
		bool plain = true;

		if (i > 0)
			buf_put(&checked, '.');
		at = checked.len;
		for (size_t r = 0; label->runes != NULL && r < label->n; r++)
			plain = plain && label->runes[r] < FIRST_RUNE;
		if (label->runes == NULL) {
			buf_append(&checked, label->text, label->len);
		} else if (plain) {
			for (size_t r = 0; r < label->n; r++)
				buf_put(&checked, (uint8_t)label->runes[r]);
		} else {
			buf_puts(&checked, "xn--");
			punycode_encode(&checked, label->runes, label->n);
		}
		if (checked.len - at > LABEL_MAX)
			return invalid_label((const char *)checked.data + at, checked.len - at, err);
	}
	if (checked.len > NAME_MAX_LEN)
		return invalid_label((const char *)checked.data, checked.len, err);
	if (strcmp(domain, buf_text(&checked)) == 0)
		return CODE_OK;
	go_quote(&from, domain);
	go_quote(&to, buf_text(&checked));
	return err_set(err, CODE_INVALID_ARGUMENT,
		       "input domain name %s does not match idna output %s: label mismatch after idna", buf_text(&from),
		       buf_text(&to));
}

static enum code check_labels(const char *domain, struct label *labels, size_t n, struct err *err)
{
	bool bidi = false;

	for (size_t i = 0; i < n; i++)
		TRY(check_label(domain, &labels[i], &bidi, err));
	for (size_t i = 0; bidi && i < n; i++)
		if (!bidi_valid(&labels[i]))
			return invalid_label(domain, strlen(domain), err);
	return check_encoded(domain, labels, n, err);
}

enum code idna_check(const char *domain, struct err *err)
{
	struct label *labels;
	size_t n = 1, i = 0;
	enum code rc;

	for (const char *c = domain; *c != '\0'; c++)
		n += *c == '.';
	labels = xcalloc(n, sizeof *labels);
	for (const char *c = domain;; c++) {
		labels[i].text = c;
		labels[i++].len = strcspn(c, ".");
		c += labels[i - 1].len;
		if (*c == '\0')
			break;
	}
	rc = check_labels(domain, labels, n, err);
	for (i = 0; i < n; i++)
		free(labels[i].runes);
	free(labels);
	return rc;
}
