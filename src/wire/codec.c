/* SPDX-License-Identifier: MIT */
/* Record headers and name-value pairs: bytes <-> values, no state. Every length is computed in 32 bits or more. */
#include "wire/wire_internal.h"

void weir_wire_header_write(uint8_t *out, uint8_t type, uint16_t id, uint16_t len, uint8_t padding)
{
    out[0] = WEIR_WIRE_VERSION;
    out[1] = type;
    out[2] = (uint8_t)(id >> 8); /* FC1-3.1-a */
    out[3] = (uint8_t)id;
    out[4] = (uint8_t)(len >> 8);
    out[5] = (uint8_t)len;
    out[6] = padding;
    out[7] = 0; /* FC1-3.3-f */
}

void weir_wire_header_read(const uint8_t *in, struct weir_wire_header *out) /* FC1-3.3-a */
{
    out->version = in[0];
    out->type = in[1];
    out->id = (uint16_t)(in[2] << 8 | in[3]);
    out->len = (uint16_t)(in[4] << 8 | in[5]);
    out->padding = in[6];
}

size_t weir_wire_pair(uint8_t *out, struct weir_str name, struct weir_str value)
{
    return pair_put(out, name, value);
}

/* One length at *pos: WEIR_OK, or WEIR_PROTOCOL if it runs past the end. (FC1-3.4-b) */
static int length_read(struct weir_str b, size_t *pos, size_t *out)
{
    const uint8_t *p = (const uint8_t *)b.ptr;
    if (*pos >= b.len) return WEIR_PROTOCOL;
    if (!(p[*pos] & 0x80)) {
        *out = p[(*pos)++];
        return WEIR_OK;
    }
    if (b.len - *pos < 4) return WEIR_PROTOCOL;
    p += *pos;
    *out = (size_t)(p[0] & 0x7f) << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    *pos += 4;
    return WEIR_OK;
}

int weir_wire_pair_next(struct weir_str bytes, size_t *pos, struct weir_pair *out) /* FC1-3.4-a, FC1-3.4-c */
{
    size_t at = *pos, name_len, value_len;
    if (at == bytes.len) return WEIR_AGAIN;
    if (length_read(bytes, &at, &name_len) < 0 || length_read(bytes, &at, &value_len) < 0) return WEIR_PROTOCOL;
    if (name_len > bytes.len - at || value_len > bytes.len - at - name_len) return WEIR_PROTOCOL;
    out->name.ptr = bytes.ptr + at;
    out->name.len = name_len;
    out->value.ptr = bytes.ptr + at + name_len;
    out->value.len = value_len;
    *pos = at + name_len + value_len;
    return WEIR_OK;
}
