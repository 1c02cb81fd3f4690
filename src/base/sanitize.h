/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_SANITIZE_H
#define BASE_SANITIZE_H

/* WITH_ASAN, WITH_TSAN: whether this is built under AddressSanitizer or ThreadSanitizer, by gcc or clang. */
#if defined __SANITIZE_ADDRESS__
#define WITH_ASAN 1
#elif defined __SANITIZE_THREAD__
#define WITH_TSAN 1
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#elif __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif

#endif
