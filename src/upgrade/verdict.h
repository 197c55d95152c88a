/*
 * verdict.h - what replacing one definition by another means, aspect by aspect.
 */
#ifndef WEIR_VERDICT_H
#define WEIR_VERDICT_H

#include "weir.h"
#include "catalog/version_catalog.h"
#include "nodes/pg_list.h"
#include "operator/definition.h"

/* From the cheapest to the one that cannot be: of several aspects the last decides. */
typedef enum WeirVerdictKind
{
	WEIR_VERDICT_IDENTICAL,
	WEIR_VERDICT_REUSE,			/* from the old state */
	WEIR_VERDICT_CONVERT,		/* from the old state by a migration */
	WEIR_VERDICT_BACKFILL,		/* from the source */
	WEIR_VERDICT_REFUSE
} WeirVerdictKind;

extern const char *weir_verdict_name(WeirVerdictKind kind);

typedef struct WeirAspect
{
	char	   *name;
	WeirVerdictKind kind;
	char	   *reason;			/* lower-case fact */
	char	   *detail;			/* jsonb text */
} WeirAspect;

typedef struct WeirVerdict
{
	List	   *aspects;		/* WeirAspect, in the order of the rules */
	WeirVerdictKind kind;		/* of all of them, but for retention, which a strategy may overrule */
	char	   *obstacle;		/* why the old state cannot be reused, or NULL */
	List	   *same_columns;	/* output columns that mean the same in both: char * */
	List	   *other_columns;	/* those of the new definition that do not */
	WeirObjection *retention;	/* what stands against a backfill that nobody asked for, or NULL */
	bool		converts;		/* a migration was given */
	bool		same_groups;	/* over the same rows: the new state has as many rows as the old one */
} WeirVerdict;

typedef struct WeirVerdictInput
{
	const WeirDefinition *next; /* NULL: objections say why */
	const char *fingerprint;	/* of its functions, as the new version will record it */
	const WeirDefinition *previous; /* NULL: a rebuild or repair, nothing is compared */
	const WeirVersion *serving;
	bool		covers_source;	/* the old state has all rows of the source */
	const char *migration;		/* or NULL; what speaks against it is among the objections */
	List	   *objections;		/* WeirObjection */
	List	   *objection_aspects;	/* char *, the aspect that each is about */
} WeirVerdictInput;

/* Reads definitions and catalog caches only. Result in CurrentMemoryContext. */
extern WeirVerdict *weir_verdict_judge(const WeirVerdictInput *input);

/*
 * The strategy that it comes to: the one asked for, or for "auto" the cheapest
 * correct one; with a migration always "convert". Raises 22023 for a reuse that cannot be, 55000 when "auto" must
 * not choose.
 */
extern const char *weir_verdict_choose(const WeirVerdict *verdict, const char *asked);

/*
 * Adds the rows about the whole: the strategy ("auto" when none was asked for,
 * chosen: what it came to, or NULL), what is to be built, what a rollback
 * costs. SPI connected, inside the catalog scope.
 */
extern void weir_verdict_add_cost(WeirVerdict *verdict, const WeirVerdictInput *input,
								  const char *asked, const char *chosen);

/* Appends one; for the rows above. Strings are kept. */
extern void weir_verdict_add(WeirVerdict *verdict, char *name, WeirVerdictKind kind, char *reason, char *detail);

/*
 * A JSON object from pairs of a name and a text; a NULL text is null, and one
 * whose name begins with '=' is JSON already. Ends with a NULL name.
 */
extern char *weir_verdict_json(const char *name,...);
extern char *weir_verdict_json_list(List *texts);

/* For the ledger: number of aspects per verdict. */
extern char *weir_verdict_summary(const WeirVerdict *verdict);

#endif							/* WEIR_VERDICT_H */
