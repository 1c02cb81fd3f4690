/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_OWN_H
#define BASE_OWN_H

#include <stddef.h>

/* Locals that free what they hold on every way out.
 *
 *   OWNABLE(X509, X509_free)           once, where the type is known: file scope, no semicolon
 *   OWN(X509) cert = X509_new();       freed at the end of the block
 *   return TAKE(cert);                 hands it on: cert is NULL afterwards
 *
 * `type` is an identifier: OWNABLE_STRUCT(view, view_close) goes with OWN_STRUCT(view). */

#define OWNABLE(type, release)                                                                                         \
	static inline __attribute__((unused)) void own_release_##type(type **held)                                     \
	{                                                                                                              \
		if (*held != NULL)                                                                                     \
			release(*held);                                                                                \
	}
#define OWN(type) __attribute__((cleanup(own_release_##type))) type *

#define OWNABLE_STRUCT(type, release)                                                                                  \
	static inline __attribute__((unused)) void own_release_struct_##type(struct type **held)                       \
	{                                                                                                              \
		if (*held != NULL)                                                                                     \
			release(*held);                                                                                \
	}
#define OWN_STRUCT(type) __attribute__((cleanup(own_release_struct_##type))) struct type *

#define TAKE(held)                                                                                                     \
	({                                                                                                             \
		__typeof__(held) taken_ = (held);                                                                      \
		(held) = NULL;                                                                                         \
		taken_;                                                                                                \
	})

#endif
