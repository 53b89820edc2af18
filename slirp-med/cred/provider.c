/* SPDX-License-Identifier: BSD-3-Clause */
/* The built-in providers; see provider.h. */
#include "cred/provider.h"

#include <string.h>

const struct sm_provider sm_providers[] = {
    {"anthropic", "api.anthropic.com", "x-api-key", "{key}", "env:ANTHROPIC_API_KEY"},
    {"openai", "api.openai.com", "Authorization", "Bearer {key}", "env:OPENAI_API_KEY"},
    {"gemini", "generativelanguage.googleapis.com", "x-goog-api-key", "{key}", "env:GEMINI_API_KEY"},
    {"groq", "api.groq.com", "Authorization", "Bearer {key}", "env:GROQ_API_KEY"},
    {"openrouter", "openrouter.ai", "Authorization", "Bearer {key}", "env:OPENROUTER_API_KEY"},
    {"deepseek", "api.deepseek.com", "Authorization", "Bearer {key}", "env:DEEPSEEK_API_KEY"},
};
const size_t sm_n_providers = SM_ARRAY_LEN(sm_providers);

const struct sm_provider *sm_provider_find(const char *name)
{
    for (size_t i = 0; i < sm_n_providers; i++)
        if (strcmp(sm_providers[i].name, name) == 0)
            return &sm_providers[i];
    return NULL;
}
