// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl doctor: runs the checks, prints what they find, repairs it. */
#include "doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* In the order in which problems have to be repaired. */
static const struct check {
	const char *id;
	void (*run)(struct report *r);
} checks[] = {
	{ "built", check_built },
	{ "signature", check_signature },
	{ "node", check_node },
	{ "loaded", check_loaded },
	{ "devices", check_devices },
	{ "huge", check_huge },
	{ "mappings", check_mappings },
	{ "udev", check_udev },
	{ "user", check_user },
	{ "qemu-user", check_qemu_user },
	{ "apparmor", check_apparmor },
	{ "cgroup", check_cgroup },
	{ "selinux", check_selinux },
	{ "domains", check_domains },
	{ "servers", check_servers },
};

#define N_CHECKS	(sizeof(checks) / sizeof(*checks))

static const struct {
	const char *word;
	enum colour colour;
} verdicts[] = {
	[RIGHT] = { "right", GREEN },
	[WRONG] = { "WRONG", RED },
	[UNSEEN] = { "unseen", YELLOW },
	[ELSEWHERE] = { "-", DIM },
};

struct device devices[MAX_DEVICES];
int n_devices;
const char *doctor_user;

static struct finding *report_add(struct report *r, enum verdict verdict,
				  const char *fmt, va_list args)
{
	struct finding *finding = &r->findings[r->n];

	if (r->n++ == MAX_FINDINGS)
		fail("more findings than fit");
	*finding = (struct finding){ .verdict = verdict,
				     .text = format(fmt, args) };
	return finding;
}

void right(struct report *r, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	report_add(r, RIGHT, fmt, args);
	va_end(args);
}

void unseen(struct report *r, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	report_add(r, UNSEEN, fmt, args);
	va_end(args);
}

void elsewhere(struct report *r, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	report_add(r, ELSEWHERE, fmt, args);
	va_end(args);
}

struct finding *wrong(struct report *r, const char *fmt, ...)
{
	struct finding *finding;
	va_list args;

	va_start(args, fmt);
	finding = report_add(r, WRONG, fmt, args);
	va_end(args);
	return finding;
}

void mend(struct finding *finding, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	finding->command = format(fmt, args);
	va_end(args);
}

void mend_file(struct finding *finding, const char *file, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	finding->command = format(fmt, args);
	va_end(args);
	finding->file = file;
	finding->anywhere = true;
}

const char *here(const char *command)
{
	return *root ? "" : command;
}

static void run_check(const struct check *check, struct report *r)
{
	r->n = 0;
	n_devices = devices_find(devices, MAX_DEVICES);
	check->run(r);
}

static void print_finding(const struct check *check,
			  const struct finding *finding)
{
	printf("%s %-9s ", column(verdicts[finding->verdict].colour, 6,
				  verdicts[finding->verdict].word), check->id);
	print_below(17, finding->text);
	if (finding->command)
		printf("%16s %s\n", "",
		       column(BOLD, 0, text("# %s", finding->command)));
}

/* The user who called sudo, if any: that user wants to open the devices. */
static const char *who_asks(void)
{
	const char *name = geteuid() || *root ? NULL : getenv("SUDO_USER");
	struct person person;

	return name && person_by_name(name, &person) ? name : NULL;
}

void diagnose(struct diagnosis *diagnosis)
{
	static struct report r;

	memset(diagnosis, 0, sizeof(*diagnosis));
	doctor_user = who_asks();
	for (size_t i = 0; i < N_CHECKS; i++) {
		run_check(&checks[i], &r);
		for (int j = 0; j < r.n; j++) {
			const struct finding *finding = &r.findings[j];

			diagnosis->count[finding->verdict]++;
			if (finding->verdict == WRONG &&
			    diagnosis->count[WRONG] == 1)
				diagnosis->first_wrong = *finding;
		}
	}
}

static bool ask(void)
{
	char answer[16];

	printf("        Do this? [y/N] ");
	fflush(stdout);
	if (!fgets(answer, sizeof(answer), stdin)) {
		printf("\n");
		return false;
	}
	return *answer == 'y' || *answer == 'Y';
}

/* Copies a file before it is changed, and keeps earlier copies. */
static void keep_copy(const char *file)
{
	const char *copy = text("%s.before-kvmfr", file);

	if (access(file, F_OK))
		return;
	for (int i = 2; !access(copy, F_OK); i++)
		copy = text("%s.before-kvmfr-%d", file, i);
	if (program_run("cp", (const char *[]){ "cp", "-p", "--", file, copy, NULL }))
		fail("%s: cannot be copied to %s, so it was not changed", file, copy);
	printf("        kept %s\n", copy);
}

static bool do_mend(const struct finding *finding, bool yes)
{
	int status;

	if (*root && !finding->anywhere) {
		printf("        not done: this is for the running system, not for %s\n",
		       root);
		return false;
	}
	if (!yes && !ask())
		return false;
	if (finding->file)
		keep_copy(finding->file);
	status = program_run("sh", (const char *[]){ "sh", "-c", finding->command,
						     NULL });
	if (status)
		warn("doctor: that ended with exit status %d", status);
	return true;
}

/* True if a command was run, so that the check has to be repeated. */
static bool mend_all(const struct check *check, const struct report *r,
		     bool yes)
{
	bool done = false;

	for (int i = 0; i < r->n; i++) {
		const struct finding *finding = &r->findings[i];
		bool again = false;

		if (finding->verdict != WRONG)
			continue;
		/* Several findings may have the same command. */
		for (int j = 0; j < i && finding->command; j++)
			again |= r->findings[j].command &&
				 !strcmp(r->findings[j].command,
					 finding->command);
		print_finding(check, finding);
		if (finding->command && !again)
			done |= do_mend(finding, yes);
	}
	return done;
}

static const struct check *check_named(const char *id)
{
	for (size_t i = 0; i < N_CHECKS; i++)
		if (!strcmp(checks[i].id, id))
			return &checks[i];
	misuse("doctor: there is no check '%s', see kvmfrctl(8)", id);
}

static bool selected(const struct check *check, int n, char **ids)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(check->id, ids[i]))
			return true;
	return !n;
}

/*
 * Runs a check, repairs what it can if that is asked for, prints the findings and
 * counts them by verdict. True if a command is left that repairs something.
 */
static bool examine(const struct check *check, bool fix, bool yes, int *count)
{
	static struct report r;
	bool mendable = false, shown = fix;	/* mend_all() shows what is wrong */

	run_check(check, &r);
	if (fix && mend_all(check, &r, yes)) {
		run_check(check, &r);
		shown = false;
	}
	for (int i = 0; i < r.n; i++) {
		const struct finding *finding = &r.findings[i];

		if (!shown || finding->verdict != WRONG)
			print_finding(check, finding);
		count[finding->verdict]++;
		mendable |= finding->command != NULL;
	}
	return mendable;
}

int cmd_doctor(int argc, char **argv)
{
	static const struct option options[] = {
		{ "fix", no_argument, NULL, 'f' },
		{ "yes", no_argument, NULL, 'y' },
		{ "user", required_argument, NULL, 'u' },
		{ }
	};
	bool fix = false, yes = false, mendable = false;
	int count[ELSEWHERE + 1] = { 0 };
	struct person person;
	int c;

	doctor_user = who_asks();
	while ((c = option_next(argc, argv, options)) != -1) {
		if (c == 'f')
			fix = true;
		else if (c == 'y')
			yes = true;
		else
			doctor_user = optarg;
	}
	if (yes && !fix)
		misuse("doctor: --yes goes with --fix");
	if (doctor_user && !person_by_name(doctor_user, &person))
		misuse("doctor: there is no user '%s'", doctor_user);
	for (int i = optind; i < argc; i++)
		check_named(argv[i]);
	if (fix && geteuid() && !*root)
		fail("doctor: --fix changes the system: run it as root");

	for (size_t i = 0; i < N_CHECKS; i++)
		if (selected(&checks[i], argc - optind, argv + optind))
			mendable |= examine(&checks[i], fix, yes, count);

	printf("\n%d right, %d wrong", count[RIGHT], count[WRONG]);
	if (count[UNSEEN])
		printf(", %d not seen: run as root to see all", count[UNSEEN]);
	printf("\n");
	if (mendable && !fix)
		printf("'kvmfrctl doctor --fix', as root, runs the commands behind '#', asking before each.\n");
	return count[WRONG] ? 1 : 0;
}
