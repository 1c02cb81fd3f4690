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

bool utf8_printable(uint32_t rune)
{
	/* Categories Cc, Cf, Co, Zs, Zl, Zp (but for the blank) and noncharacters. */
	static const uint32_t hidden[][2] = {
		{ 0x00, 0x1f },        { 0x7f, 0xa0 },       { 0xad, 0xad },       { 0x600, 0x605 },
		{ 0x61c, 0x61c },      { 0x6dd, 0x6dd },     { 0x70f, 0x70f },     { 0x890, 0x891 },
		{ 0x8e2, 0x8e2 },      { 0x1680, 0x1680 },   { 0x180e, 0x180e },   { 0x2000, 0x200f },
		{ 0x2028, 0x202f },    { 0x205f, 0x206f },   { 0x3000, 0x3000 },   { 0xd800, 0xf8ff },
		{ 0xfdd0, 0xfdef },    { 0xfeff, 0xfeff },   { 0xfff0, 0xfffb },   { 0x110bd, 0x110bd },
		{ 0x110cd, 0x110cd },  { 0x13430, 0x1343f }, { 0x1bca0, 0x1bca3 }, { 0x1d173, 0x1d17a },
		{ 0xe0000, 0x10ffff },
	};

	if ((rune & 0xfffe) == 0xfffe)
		return false;
	for (size_t i = 0; i < sizeof hidden / sizeof hidden[0]; i++)
		if (rune <= hidden[i][1])
			return rune < hidden[i][0];
	return true;
}
