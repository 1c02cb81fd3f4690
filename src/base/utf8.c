/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8, as strict as RFC 3629. */
#include "base/utf8.h"

size_t utf8_next(const char *text, size_t len, uint32_t *rune)
{
	const unsigned char *at = (const unsigned char *)text;
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t value;
	size_t size;

	if (len == 0)
		return 0;
	if (at[0] < 0x80) {
		*rune = at[0];
		return 1;
	}
	size = at[0] >= 0xf8 ? 0 : at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : at[0] >= 0xc0 ? 2 : 0;
	if (size == 0 || size > len)
		return 0;
	value = at[0] & (0xffU >> (size + 1));
	for (size_t i = 1; i < size; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (at[i] & 0x3f);
	}
	if (value < least[size] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
		return 0;
	*rune = value;
	return size;
}

bool utf8_valid(const char *text, size_t len)
{
	uint32_t rune;

	while (len > 0) {
		size_t size = utf8_next(text, len, &rune);

		if (size == 0)
			return false;
		text += size;
		len -= size;
	}
	return true;
}
