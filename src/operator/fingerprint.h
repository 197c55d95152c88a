/*
 * fingerprint.h - telling whether the functions that a definition calls are still the same.
 */
#ifndef WEIR_FINGERPRINT_H
#define WEIR_FINGERPRINT_H

#include "weir.h"
#include "nodes/pg_list.h"

/* SHA-256 of a text, as 64 hexadecimal digits. */
extern char *weir_digest(const char *text);

/*
 * "<oid>:<digest> ..." of the user's functions among these, as they are now:
 * source or library, language and settings. Empty when there are none.
 */
extern char *weir_functions_fingerprint(List *functions);

/*
 * Functions that both fingerprints have, with different digests: List of char *,
 * qualified names with argument types.
 */
extern List *weir_fingerprint_changed(const char *recorded, const char *now);

#endif							/* WEIR_FINGERPRINT_H */
