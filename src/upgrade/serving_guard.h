/*
 * serving_guard.h - a version that is to serve is judged again when the
 * transaction that says so commits.
 */
#ifndef WEIR_SERVING_GUARD_H
#define WEIR_SERVING_GUARD_H

#include "weir.h"

/* This transaction has made the version serve: it fails to commit (55000) when that version has stopped meanwhile. */
extern void weir_serving_guard(int64 upgrade_id, int version);

#endif							/* WEIR_SERVING_GUARD_H */
