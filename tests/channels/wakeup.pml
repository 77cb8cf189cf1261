/* SPDX-License-Identifier: MIT */
/*
 * The wake-up rule of docs/channels.rst: two ends, a ring of two, four bytes.
 * A lost wake-up is a state in which both wait: spin's "invalid end state".
 *
 * With -DNO_BARRIER the word that asks for a ring reaches the memory after the
 * index was looked at again, which is what a store buffer does.
 */
#define RING	2
#define BYTES	4

byte head, tail;		/* each written by one end */
bool want_data, want_room;
bool bell_reader, bell_writer;	/* a ring stays until it is cleared */

proctype writer()
{
	byte seen;

	do
	:: head == BYTES -> break
	:: else ->
		seen = tail;
		if
		:: head - seen < RING ->
			head++;
			/* barrier */
			if
			:: want_data -> bell_reader = true
			:: else
			fi
		:: else ->
#ifdef NO_BARRIER
			seen = tail; want_room = true;
#else
			want_room = true; seen = tail;
#endif
			if
			:: head - seen == RING -> bell_writer; bell_writer = false
			:: else
			fi;
			want_room = false
		fi
	od
}

proctype reader()
{
	byte seen;

	do
	:: tail == BYTES -> break
	:: else ->
		seen = head;
		assert(seen - tail <= RING);
		if
		:: seen != tail ->
			tail++;
			/* barrier */
			if
			:: want_room -> bell_writer = true
			:: else
			fi
		:: else ->
#ifdef NO_BARRIER
			seen = head; want_data = true;
#else
			want_data = true; seen = head;
#endif
			if
			:: seen == tail -> bell_reader; bell_reader = false
			:: else
			fi;
			want_data = false
		fi
	od
}

init { atomic { run writer(); run reader() } }
