/*
 * rollback_guard.h - a rollback is judged again when its transaction commits.
 */
#ifndef WEIR_ROLLBACK_GUARD_H
#define WEIR_ROLLBACK_GUARD_H

#include "weir.h"

/* This transaction has made the upgrade's old version serve again: it fails to commit when that version has stopped meanwhile. */
extern void weir_rollback_guard(int64 upgrade_id);

#endif							/* WEIR_ROLLBACK_GUARD_H */
