/*
 * definition_atom.c - from aggregate calls to atoms: what is kept per key.
 *
 * Pure, on a definition that is being built.  Different calls share what they
 * have in common: sum(x), avg(x) and count(x) with one filter are two atoms.
 * No value is computed here; the texts that compute them are in delta_sql.c.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"

#include "operator/objection.h"

bool
weir_aggregate_classify(const Aggref *aggref, WeirAggregateKind *kind)
{
	static const struct
	{
		const char *name;
		WeirAggregateKind kind;
	}			aggregates[] = {
		{"count", WEIR_AGG_COUNT},
		{"sum", WEIR_AGG_SUM},
		{"avg", WEIR_AGG_AVG},
		{"min", WEIR_AGG_MIN},
		{"max", WEIR_AGG_MAX},
		{"bool_and", WEIR_AGG_BOOL_AND},
		{"every", WEIR_AGG_BOOL_AND},
		{"bool_or", WEIR_AGG_BOOL_OR},
	};
	char	   *name;

	/* The server's own: an aggregate that a user puts into pg_catalog has a later OID. */
	if (aggref->aggfnoid >= FirstUnpinnedObjectId || aggref->aggkind != AGGKIND_NORMAL)
		return false;
	name = get_func_name(aggref->aggfnoid);
	for (int i = 0; name != NULL && i < lengthof(aggregates); i++)
	{
		if (strcmp(name, aggregates[i].name) == 0)
		{
			*kind = aggregates[i].kind;
			return true;
		}
	}
	return false;
}

static int
find_or_add_atom(WeirDefinition *def, WeirAtomKind kind, Node *arg, Node *filter)
{
	WeirAtom   *atom;

	for (int i = 0; i < def->natoms; i++)
	{
		atom = &def->atoms[i];
		if (atom->kind == kind && equal(atom->arg, arg) && equal(atom->filter, filter))
			return i;
	}
	atom = &def->atoms[def->natoms];
	memset(atom, 0, sizeof(WeirAtom));
	atom->kind = kind;
	atom->arg = arg;
	atom->filter = filter;
	atom->extreme = -1;
	if (arg != NULL)
	{
		atom->arg_sql = weir_deparse(def->source, arg);
		atom->arg_type = exprType(arg);
		atom->arg_collation = exprCollation(arg);
	}
	if (filter != NULL)
		atom->filter_sql = weir_deparse(def->source, filter);
	return def->natoms++;
}

WeirAtom *
weir_atom_add(WeirDefinition *def, WeirAtomKind kind, Node *arg, Node *filter)
{
	return &def->atoms[find_or_add_atom(def, kind, arg, filter)];
}

/* min and max of the same values share one side table. */
static int
add_extreme_atom(WeirDefinition *def, WeirAtomKind kind, Node *arg, Node *filter)
{
	int			index = find_or_add_atom(def, kind, arg, filter);
	WeirAtom   *atom = &def->atoms[index];

	if (def->append_only || atom->extreme >= 0)
		return index;
	for (int i = 0; i < def->natoms; i++)
	{
		const WeirAtom *other = &def->atoms[i];

		if (other->extreme >= 0 && equal(other->arg, arg) && equal(other->filter, filter))
		{
			atom->extreme = other->extreme;
			return index;
		}
	}
	def->extremes[def->nextremes] = weir_extreme_definition(def, arg, filter);
	atom->extreme = def->nextremes++;
	return index;
}

/* count(x), where x may be something that is never NULL. */
static int
add_count_atom(WeirDefinition *def, Node *arg, Node *filter)
{
	if (arg != NULL && IsA(arg, Const) && !((Const *) arg)->constisnull)
		arg = NULL;
	return find_or_add_atom(def, WEIR_ATOM_COUNT, arg, filter);
}

static void
add_atoms(WeirDefinition *def, WeirAggregate *aggregate, Node *arg, Node *filter)
{
	Node	   *negated;

	aggregate->count_atom = -1;
	switch (aggregate->kind)
	{
		case WEIR_AGG_COUNT:
			aggregate->atom = add_count_atom(def, arg, filter);
			break;
		case WEIR_AGG_SUM:
		case WEIR_AGG_AVG:
			aggregate->atom = find_or_add_atom(def, WEIR_ATOM_SUM, arg, filter);
			aggregate->count_atom = add_count_atom(def, arg, filter);
			break;
		case WEIR_AGG_MIN:
			aggregate->atom = add_extreme_atom(def, WEIR_ATOM_MIN, arg, filter);
			break;
		case WEIR_AGG_MAX:
			aggregate->atom = add_extreme_atom(def, WEIR_ATOM_MAX, arg, filter);
			break;
		case WEIR_AGG_BOOL_AND:
		case WEIR_AGG_BOOL_OR:
			negated = (Node *) makeBoolExpr(NOT_EXPR, list_make1(arg), -1);
			aggregate->atom = find_or_add_atom(def, WEIR_ATOM_COUNT, NULL, make_and_qual(filter, arg));
			aggregate->count_atom = find_or_add_atom(def, WEIR_ATOM_COUNT, NULL, make_and_qual(filter, negated));
			break;
	}
}

int
weir_aggregate_add(WeirDefinition *def, const Aggref *aggref)
{
	WeirAggregate *aggregate = &def->aggregates[def->naggregates];
	Node	   *arg = aggref->args == NIL ? NULL : (Node *) linitial_node(TargetEntry, aggref->args)->expr;

	memset(aggregate, 0, sizeof(WeirAggregate));
	if (!weir_aggregate_classify(aggref, &aggregate->kind))
		elog(ERROR, "aggregate %u is not supported", aggref->aggfnoid);
	aggregate->type = aggref->aggtype;
	aggregate->collation = aggref->aggcollid;
	aggregate->arg_type = arg != NULL ? exprType(arg) : InvalidOid;
	add_atoms(def, aggregate, arg, (Node *) aggref->aggfilter);
	for (int i = 0; i < def->naggregates; i++)
	{
		const WeirAggregate *other = &def->aggregates[i];

		if (other->kind == aggregate->kind && other->type == aggregate->type &&
			other->collation == aggregate->collation && other->arg_type == aggregate->arg_type &&
			other->atom == aggregate->atom && other->count_atom == aggregate->count_atom)
			return i;
	}
	return def->naggregates++;
}

static void
add_hidden(WeirDefinition *def, char *name, Oid type, Oid collation)
{
	WeirColumn *column = &def->hidden[def->nhidden++];

	column->name = name;
	column->type = type;
	column->typmod = -1;
	column->collation = collation;
}

/* The type in which a sum is exact and can be taken back in any order. */
static Oid
sum_state_type(Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
			return INT8OID;
		case INTERVALOID:
		case CASHOID:
			return type;
		default:
			return NUMERICOID;
	}
}

static bool
has_infinities(Oid type)
{
	return type == NUMERICOID || type == FLOAT4OID || type == FLOAT8OID || type == INTERVALOID;
}

/* Values of a column numeric(p,s) all have the same scale, and then so has their sum. */
static bool
has_any_scale(const WeirAtom *atom)
{
	return atom->arg_type == NUMERICOID && exprTypmod(atom->arg) < 0;
}

void
weir_atoms_lay_out(WeirDefinition *def)
{
	def->hidden = palloc0(sizeof(WeirColumn) * def->natoms * WEIR_ATOM_MAX_COLUMNS);
	def->nhidden = 0;
	for (int i = 0; i < def->natoms; i++)
	{
		WeirAtom   *atom = &def->atoms[i];

		atom->first_column = def->nhidden;
		switch (atom->kind)
		{
			case WEIR_ATOM_COUNT:
				add_hidden(def, i == 0 ? pstrdup("_weir_n") : psprintf("_weir_c%d", i), INT8OID, InvalidOid);
				break;
			case WEIR_ATOM_SUM:
				add_hidden(def, psprintf("_weir_s%d", i), sum_state_type(atom->arg_type), InvalidOid);
				if (has_infinities(atom->arg_type))
				{
					add_hidden(def, psprintf("_weir_s%d_nan", i), INT8OID, InvalidOid);
					add_hidden(def, psprintf("_weir_s%d_pinf", i), INT8OID, InvalidOid);
					add_hidden(def, psprintf("_weir_s%d_ninf", i), INT8OID, InvalidOid);
				}
				if (has_any_scale(atom))
					add_hidden(def, psprintf("_weir_s%d_scales", i), NUMERICOID, InvalidOid);
				break;
			case WEIR_ATOM_MIN:
			case WEIR_ATOM_MAX:
				add_hidden(def, psprintf("_weir_x%d", i), atom->arg_type, atom->arg_collation);
				break;
		}
		atom->ncolumns = def->nhidden - atom->first_column;
	}
}
