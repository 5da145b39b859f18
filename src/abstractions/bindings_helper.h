/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen translates for src/abstractions: the device-mapper interface, our own helpers and tracepoints, and what
 * compat adds. Types that the kernel's own bindings know already are taken from there (see bindings.rs).
 */
#include <linux/device-mapper.h>
#include "compat/compat.h"
#include "helpers.h"
#include "trace/trace.h"
